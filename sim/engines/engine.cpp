// SPDX-License-Identifier: BSD-2-Clause
// Runs a compiled component on arrays, as `sim.engines.amaranth` does on Amaranth's simulator: both
// see the same in every cycle and report the same errors.

#include <algorithm>
#include <vector>

// One engine's model of the component.
#include "model.h"

// Copies a port from words, or to words if it is an output.
using Access = void (*)(Model &, Word *);

// Stands for a port that is not there: a stream without `valid` or `ready` is always valid or ready.
static void missing(Model &, Word *) {}

struct Port {
    unsigned words;
    Access payload, valid, ready;
};

// This component's `inputs` and `outputs`, its other pins, and whether it has `streams`.
#include "ports.h"

// End and Job are those of `sim.engines.compiled`.
struct End {
    Word *rows;
    const uint8_t *pauses;
    uint64_t *times;
    uint64_t total, done;
    uint32_t valid, ready;
};

struct Job {
    uint64_t latency, patience, period, after, cycle, first, last, culprit;
};

enum Status { MORE, DONE, DEADLOCK, BROKEN, SURPLUS };

struct Engine {
    Model model;
    Job &job;
    End *sources, *sinks;
    std::vector<std::vector<Word>> payloads, held;
    std::vector<char> holding;
    uint64_t moved = 0, idle = 0;

    Engine(End *ends, Job *job) : job(*job), sources(ends), sinks(ends + inputs.size()),
                                  payloads(outputs.size()), held(outputs.size()),
                                  holding(outputs.size()) {
        for (unsigned k = 0; k < outputs.size(); k++) {
            payloads[k].resize(outputs[k].words);
            held[k].resize(outputs[k].words);
        }
        // Registers that have a reset get their initial values by it.
        set(rst, 1);
        settle();
        edge();
        set(rst, 0);
    }

    void set(Access port, Word value) { port(model, &value); }

    Word get(Access port) {
        Word value = 1;
        port(model, &value);
        return value;
    }

    bool paused(const End &end) { return end.pauses[job.cycle % job.period]; }

    void settle() {
        set(clk, 0);
        model.settle();
    }

    void edge() {
        set(clk, 1);
        model.tick();
    }

    void give(unsigned k, uint64_t row) {
        inputs[k].payload(model, sources[k].rows + row * inputs[k].words);
    }

    // The first payload that is offered or taken starts the count of cycles.
    void begin() { job.first = std::min(job.first, job.cycle); }

    void transfer(End &end) {
        if (end.times) end.times[end.done] = job.cycle;
        end.done++;
    }

    // One cycle of a component without streams: a row goes in and one comes out if it is enabled.
    Status rows() {
        uint64_t count = sinks[0].total;
        if (moved == count + job.latency) return DONE;
        for (unsigned k = 0; k < inputs.size(); k++) give(k, std::min(moved, count - 1));
        bool enabled = !job.latency || !paused(sinks[0]);
        set(enable, enabled);
        settle();
        if (enabled) {
            begin();
            if (moved < count)
                for (unsigned k = 0; k < inputs.size(); k++) transfer(sources[k]);
            if (moved++ >= job.latency)
                for (unsigned k = 0; k < outputs.size(); k++) {
                    outputs[k].payload(model, sinks[k].rows + sinks[k].done * outputs[k].words);
                    transfer(sinks[k]);
                    job.last = job.cycle;
                }
        }
        if (job.latency) edge();
        job.cycle++;
        return MORE;
    }

    // Checks an output in a settled cycle and takes its payload if the end is ready.
    Status take(unsigned k, bool &transferred) {
        End &end = sinks[k];
        end.valid = get(outputs[k].valid);
        if (holding[k] && !end.valid) return BROKEN;
        if (end.valid) outputs[k].payload(model, payloads[k].data());
        if (holding[k] && payloads[k] != held[k]) return BROKEN;
        holding[k] = end.valid && !end.ready;
        if (holding[k]) std::swap(payloads[k], held[k]);
        if (!end.valid) return MORE;
        if (end.done == end.total) return SURPLUS;
        if (end.ready) {
            std::copy(payloads[k].begin(), payloads[k].end(),
                      end.rows + end.done * outputs[k].words);
            begin();
            transfer(end);
            job.last = job.cycle;
            transferred = true;
        }
        return MORE;
    }

    // One cycle of a component with streams.
    Status cycle() {
        bool pause = false, transferred = false, complete = true;
        for (unsigned k = 0; k < inputs.size(); k++) {
            End &end = sources[k];
            if (!end.valid && end.done < end.total) {
                if (paused(end)) {
                    pause = true;
                } else {
                    give(k, end.done);
                    end.valid = 1;
                    begin();
                }
            }
            set(inputs[k].valid, end.valid);
        }
        for (unsigned k = 0; k < outputs.size(); k++) {
            sinks[k].ready = !paused(sinks[k]);
            pause |= !sinks[k].ready;
            set(outputs[k].ready, sinks[k].ready);
        }
        settle();
        for (unsigned k = 0; k < inputs.size(); k++) {
            End &end = sources[k];
            end.ready = get(inputs[k].ready);
            if (end.valid && end.ready) {
                transfer(end);
                end.valid = 0;
                transferred = true;
            }
        }
        for (unsigned k = 0; k < outputs.size(); k++) {
            if (Status status = take(k, transferred)) {
                job.culprit = k;
                return status;
            }
            complete &= sinks[k].done == sinks[k].total;
        }
        bool done = false;
        if (complete) {
            done = !job.after--;
        } else if (transferred) {
            idle = 0;
        } else if (!pause && ++idle == job.patience) {
            return DEADLOCK;
        }
        // The last cycle has its edge, too, so that a run may follow.
        edge();
        job.cycle++;
        return done ? DONE : MORE;
    }
};

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

EXPORT void *start(End *ends, Job *job) { return new Engine(ends, job); }

EXPORT int advance(void *engine, uint64_t cycles) {
    Engine &e = *static_cast<Engine *>(engine);
    Status status = MORE;
    while (cycles-- && status == MORE) status = streams ? e.cycle() : e.rows();
    return status;
}

#if VM_COVERAGE
// Writes the counts of what was covered.
EXPORT void save(void *engine, const char *path) {
    static_cast<Engine *>(engine)->model.context.coveragep()->write(path);
}
#endif

EXPORT void stop(void *engine) { delete static_cast<Engine *>(engine); }
