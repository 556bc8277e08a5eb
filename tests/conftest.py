import pytest

from sim.engines import build


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory, worker_id):
    """Compiled simulations go to a folder that all workers share and that goes with the session.

    They are compiled without optimization: for runs as short as the tests', building takes longer.
    """
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2XFP_CACHE_DIR",
                     str((base if worker_id == "master" else base.parent) / "compiled"))
        patch.setattr(build, "_FAST", "-O0")
        yield
