"""What all command lines have in common."""

import argparse


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}; see --help\n")
