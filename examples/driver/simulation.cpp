// SPDX-License-Identifier: BSD-2-Clause
//
// Runs jobs on a simulated AXI machine, through the driver. Verilator's model of
// axi_accelerator_axi stands for the chip: this file moves its streams, as DMA channels would, and
// its registers, as a processor's bus would. All ends of all streams stall at random.
//
//   simulation JOBS RESULTS [SEED [LOG]]
//
// JOBS is a file of words of 32 bits, little-endian, and of operands. A job begins with six words:
//
//   0 m k n source result   a command; if it is going to run, its operands follow: planes of W
//                           (elements, metadata, scales), and planes of A (source 0), or floats
//                           (source 1)
//   1 0 0 0 0 0             waits until all commands have ended
//   2 cycles 0 0 0 0        waits for some cycles, then resets the machine and forgets the commands
//   3 mark 0 0 0 0          a framed machine: the next command's weights are marked wrongly
//   4 causes 0 0 0 0        what halts the machine until it is reset, as in the register HALT_ON
//   5 cycles watchdog 0 0 0 waits for some cycles, then halts the machine; or, with a watchdog, takes
//                           the last weights away from the machine and waits until that halts it.
//                           Then it resumes
//
// RESULTS has, for each command that has ended, a word with its status and then, if it ran, its
// result: M x N floats, or the planes of its records. A command that ended in a halt has the word
// -1, whatever its status. Last comes a word with all events seen.
// LOG gets a line for each access of the driver's and each beat, in hexadecimal:
//
//   read 034 80000000       or write, with address and data
//   m_axis DATA 1           a beat, highest bits first, and tlast where the stream has it
//
// Compiled with -DFRAMED and -DQUANTIZES for machines that have these streams; -DMODEL names the
// model, Vaxi_accelerator_axi otherwise.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "m2xfp.h"

#ifndef MODEL
#define MODEL Vaxi_accelerator_axi
#endif
#define QUOTED(name) #name
#define HEADER(name) QUOTED(name.h)
#include HEADER(MODEL)

double sc_time_stamp() { return 0; }

using Bytes = std::vector<uint8_t>;

[[noreturn]] static void fail(const char *text)
{
    std::fprintf(stderr, "error: %s\n", text);
    std::exit(1);
}

static uint32_t state = 1;

static bool sometimes()
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (state >> 9 & 7) > 2;
}

static std::FILE *record;

static void log_beat(const char *stream, const Bytes &data, int last)
{
    if (!record)
        return;
    std::fprintf(record, "%s ", stream);
    for (auto byte = data.rbegin(); byte != data.rend(); ++byte)
        std::fprintf(record, "%02x", *byte);
    std::fprintf(record, last < 0 ? "\n" : " %d\n", last);
}

static void log_access(const char *kind, uint32_t offset, uint32_t value)
{
    if (record)
        std::fprintf(record, "%s %03x %08x\n", kind, offset, value);
}

// A port of any width as bytes: Verilator has an integer or an array of words for it.
template <typename Port> static void set(Port &port, const Bytes &bytes)
{
    std::memcpy(&port, bytes.data(), bytes.size());
}

template <typename Port> static Bytes get(const Port &port, size_t size)
{
    Bytes bytes(size);
    std::memcpy(bytes.data(), &port, size);
    return bytes;
}

struct Beat {
    Bytes data;
    bool last;
};

// The machine with its streams.
struct Machine {
    std::unique_ptr<MODEL> top{new MODEL};
    std::deque<Beat> weight, activation, value, rows, records;
    size_t result_bytes = 0, record_bytes = 0;
    uint64_t cycles = 0;

    // An end that offers beats; it holds each one until it is taken.
    template <typename Data, typename Bit, typename Mark>
    void offer(std::deque<Beat> &beats, Data &data, Bit &valid, Mark mark)
    {
        if (!valid && !beats.empty() && sometimes()) {
            set(data, beats.front().data);
            mark(beats.front().last);
            valid = 1;
        }
    }

    template <typename Data, typename Bit>
    void take(const char *stream, std::deque<Beat> &beats, const Data &data, size_t size,
              Bit valid, Bit ready, Bit last)
    {
        if (valid && ready) {
            beats.push_back({get(data, size), last != 0});
            log_beat(stream, beats.back().data, last != 0);
        }
    }

    // Removes a beat that was taken.
    template <typename Bit> void sent(const char *stream, std::deque<Beat> &beats, Bit &valid)
    {
#ifdef FRAMED
        log_beat(stream, beats.front().data, beats.front().last);
#else
        log_beat(stream, beats.front().data, -1);
#endif
        beats.pop_front();
        valid = 0;
    }

    // One clock cycle.
    void tick()
    {
#ifdef FRAMED
        offer(weight, top->s_axis_weight_tdata, top->s_axis_weight_tvalid,
              [&](bool last) { top->s_axis_weight_tlast = last; });
        offer(activation, top->s_axis_activation_tdata, top->s_axis_activation_tvalid,
              [&](bool last) { top->s_axis_activation_tlast = last; });
        offer(value, top->s_axis_value_tdata, top->s_axis_value_tvalid,
              [&](bool last) { top->s_axis_value_tlast = last; });
#else
        offer(weight, top->s_axis_weight_tdata, top->s_axis_weight_tvalid, [](bool) {});
        offer(activation, top->s_axis_activation_tdata, top->s_axis_activation_tvalid,
              [](bool) {});
        offer(value, top->s_axis_value_tdata, top->s_axis_value_tvalid, [](bool) {});
#endif
        top->m_axis_tready = sometimes();
#ifdef QUANTIZES
        top->m_axis_record_tready = sometimes();
#endif
        top->eval();
        bool taken[3] = {top->s_axis_weight_tvalid && top->s_axis_weight_tready,
                        top->s_axis_activation_tvalid && top->s_axis_activation_tready,
                        top->s_axis_value_tvalid && top->s_axis_value_tready};
        take("m_axis", rows, top->m_axis_tdata, result_bytes, top->m_axis_tvalid,
             top->m_axis_tready, top->m_axis_tlast);
#ifdef QUANTIZES
        take("m_axis_record", records, top->m_axis_record_tdata, record_bytes,
             top->m_axis_record_tvalid, top->m_axis_record_tready, top->m_axis_record_tlast);
#endif
        top->aclk = 1;
        top->eval();
        top->aclk = 0;
        if (taken[0])
            sent("s_axis_weight", weight, top->s_axis_weight_tvalid);
        if (taken[1])
            sent("s_axis_activation", activation, top->s_axis_activation_tvalid);
        if (taken[2])
            sent("s_axis_value", value, top->s_axis_value_tvalid);
        top->eval();
        if (++cycles > 2000000)
            fail("the machine does not answer");
    }

    // One cycle of reset; all that was on its way is gone.
    void reset()
    {
        for (auto *beats : {&weight, &activation, &value, &rows, &records})
            beats->clear();
        top->s_axis_weight_tvalid = top->s_axis_activation_tvalid = top->s_axis_value_tvalid = 0;
        top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_arvalid = 0;
        top->s_axi_bready = top->s_axi_rready = 0;
        top->aresetn = 0;
        tick();
        rows.clear();
        records.clear();
        top->aresetn = 1;
    }

    // The bus. Address and data of a write are offered in either order or together.
    int write(uint32_t offset, uint32_t word)
    {
        bool address = false, data = false;

        top->s_axi_awaddr = offset;
        top->s_axi_wdata = word;
        top->s_axi_wstrb = 15;
        while (!address || !data) {
            if (!address)
                top->s_axi_awvalid = top->s_axi_awvalid || sometimes();
            if (!data)
                top->s_axi_wvalid = top->s_axi_wvalid || sometimes();
            top->eval();
            bool taken[2] = {top->s_axi_awvalid && top->s_axi_awready,
                             top->s_axi_wvalid && top->s_axi_wready};
            tick();
            if (taken[0])
                address = true, top->s_axi_awvalid = 0;
            if (taken[1])
                data = true, top->s_axi_wvalid = 0;
        }
        for (;;) {
            top->s_axi_bready = sometimes();
            top->eval();
            bool taken = top->s_axi_bvalid && top->s_axi_bready;
            int response = top->s_axi_bresp;
            tick();
            if (taken) {
                top->s_axi_bready = 0;
                return response;
            }
        }
    }

    int read(uint32_t offset, uint32_t *word)
    {
        top->s_axi_araddr = offset;
        top->s_axi_arvalid = 1;
        for (bool taken = false; !taken;) {
            top->eval();
            taken = top->s_axi_arready;
            tick();
        }
        top->s_axi_arvalid = 0;
        for (;;) {
            top->s_axi_rready = sometimes();
            top->eval();
            bool taken = top->s_axi_rvalid && top->s_axi_rready;
            int response = top->s_axi_rresp;
            *word = top->s_axi_rdata;
            tick();
            if (taken) {
                top->s_axi_rready = 0;
                return response;
            }
        }
    }
};

static int read32(void *machine, uint32_t offset, uint32_t *value)
{
    int response = static_cast<Machine *>(machine)->read(offset, value);

    log_access("read", offset, *value);
    return response;
}

static int write32(void *machine, uint32_t offset, uint32_t value)
{
    log_access("write", offset, value);
    return static_cast<Machine *>(machine)->write(offset, value);
}

struct Started {
    m2xfp_command command;
    m2xfp_plan plan;
    int status;
};

struct Session {
    std::FILE *jobs, *results;
    Machine machine;
    m2xfp_device device;
    m2xfp_bus bus{&machine, read32, write32};
    std::deque<Started> started;
    uint32_t seen = 0;
    bool mismark = false, halting = false;
    // Bytes of a group.
    size_t elements = 0, metadata = 0;

    Bytes operands(size_t size)
    {
        Bytes bytes(size);
        if (std::fread(bytes.data(), 1, size, jobs) != size)
            fail("the file of jobs ends within operands");
        return bytes;
    }

    void give(const void *data, size_t size)
    {
        if (std::fwrite(data, 1, size, results) != size)
            fail("cannot write results");
    }

    void open()
    {
        machine.reset();
        // The bus has addresses that do not exist, and registers that cannot be written.
        uint32_t word = 1;
        if (machine.read(0xffc, &word) != 2 || word != 0 || machine.write(0, 1) != 2)
            fail("a wrong access was not refused");
        if (int code = m2xfp_open(&device, &bus)) {
            std::fprintf(stderr, "error: m2xfp_open gives %d\n", code);
            std::exit(1);
        }
        machine.result_bytes = m2xfp_result_bytes(&device.machine);
        machine.record_bytes = m2xfp_record_bytes(&device.machine);
        elements = m2xfp_group(&device.machine) / 2;
        metadata = machine.record_bytes - elements - 1;
        if (m2xfp_set_interrupts(&device, M2XFP_EVENT_DONE | M2XFP_EVENT_FAILED))
            fail("cannot set interrupts");
        started.clear();
    }

    // A stream's beats, packed through a buffer of three.
    template <typename Pack>
    void send(std::deque<Beat> &beats, m2xfp_walk walk, size_t bytes, Pack pack)
    {
        m2xfp_walk marks = walk;
        m2xfp_beat beat;
        Bytes buffer(3 * bytes);
        while (size_t count = pack(&walk, buffer.data(), buffer.size()))
            for (size_t i = 0; i < count; i++) {
                m2xfp_walk_next(&marks, &beat);
                auto begin = buffer.begin() + static_cast<std::ptrdiff_t>(i * bytes);
                beats.push_back({Bytes(begin, begin + static_cast<std::ptrdiff_t>(bytes)),
                                 beat.last != 0});
            }
    }

    void submit(const uint32_t *head)
    {
        Started one;
        one.command = {head[1], head[2], head[3], head[4], head[5]};
        while (int code = m2xfp_submit(&device, &one.command, &one.status)) {
            if (code == M2XFP_HALTED && started.empty())
                resume();
            else if (code == M2XFP_FULL || code == M2XFP_HALTED)
                collect();
            else
                fail("a command was not started");
        }
        if (one.status == M2XFP_DONE) {
            m2xfp_make_plan(&one.plan, &device.machine, &one.command);
            size_t groups = one.plan.groups, w = one.command.n * groups, a = one.command.m * groups;
            Bytes plane[6] = {operands(elements * w), operands(metadata * w), operands(w)};
            m2xfp_planes weights = {plane[0].data(), plane[1].data(), plane[2].data()};
            m2xfp_walk walk;
            m2xfp_walk_weights(&walk, &one.plan);
            send(machine.weight, walk, m2xfp_weight_bytes(&device.machine),
                 [&](m2xfp_walk *at, uint8_t *buffer, size_t size) {
                     return m2xfp_pack_weights(at, &weights, buffer, size);
                 });
            if (mismark)
                machine.weight.back().last = false;
            mismark = false;
            m2xfp_walk_activations(&walk, &one.plan);
            if (one.command.source == M2XFP_FROM_RECORDS) {
                plane[3] = operands(elements * a);
                plane[4] = operands(metadata * a);
                plane[5] = operands(a);
                m2xfp_planes given = {plane[3].data(), plane[4].data(), plane[5].data()};
                send(machine.activation, walk, machine.record_bytes,
                     [&](m2xfp_walk *at, uint8_t *buffer, size_t size) {
                         return m2xfp_pack_activations(at, &given, buffer, size);
                     });
            } else if (one.command.source == M2XFP_FROM_VALUES) {
                Bytes bytes = operands(size_t(4) * one.command.m * one.command.k);
                std::vector<float> x(bytes.size() / 4);
                std::memcpy(x.data(), bytes.data(), bytes.size());
                send(machine.value, walk, m2xfp_value_bytes(&device.machine),
                     [&](m2xfp_walk *at, uint8_t *buffer, size_t size) {
                         return m2xfp_pack_values(at, &device.machine, x.data(), one.command.k,
                                                  buffer, size);
                     });
            }
        }
        started.push_back(one);
    }

    // Waits for the interrupt and takes the oldest result.
    void collect()
    {
        while (!machine.top->irq)
            machine.tick();
        uint32_t events;
        if (m2xfp_events(&device, &events))
            fail("cannot read events");
        seen |= events & ~uint32_t(M2XFP_EVENT_FREE);
        int code = m2xfp_collect(&device);
        if (code == M2XFP_WAITING) {
            if (m2xfp_clear_events(&device, M2XFP_EVENT_FAILED) || !(events & M2XFP_EVENT_FAILED))
                fail("an interrupt has no reason");
            machine.tick();
            return;
        }
        Started one = started.front();
        started.pop_front();
        if (halting && code > M2XFP_TOO_LARGE) {
            code = -1;
            give(&code, 4);
            return;
        }
        if (code != one.status)
            fail("a command ended otherwise than it should have");
        give(&code, 4);
        if (code != M2XFP_DONE)
            return;
        m2xfp_walk walk;
        m2xfp_walk_results(&walk, &one.plan);
        size_t m = one.command.m, n = one.command.n, count = size_t(one.plan.result_beats);
        if (one.command.result == M2XFP_TO_VALUES) {
            std::vector<float> y(m * n);
            drain(machine.rows, count, [&](const Bytes &beat) {
                return m2xfp_unpack_values(&walk, beat.data(), beat.size(), y.data(), n);
            });
            give(y.data(), 4 * y.size());
        } else if (one.command.result == M2XFP_TO_RECORDS) {
            Bytes planes[3] = {Bytes(elements * count), Bytes(metadata * count), Bytes(count)};
            m2xfp_result_planes y = {planes[0].data(), planes[1].data(), planes[2].data()};
            drain(machine.records, count, [&](const Bytes &beat) {
                return m2xfp_unpack_records(&walk, beat.data(), beat.size(), &y);
            });
            for (const Bytes &plane : planes)
                give(plane.data(), plane.size());
        }
    }

    // The senders have sent all that they have before the machine goes on.
    void resume()
    {
        while (int code = m2xfp_resume(&device)) {
            if (code != M2XFP_WAITING)
                fail("the machine does not resume");
            machine.tick();
        }
    }

    // Halts the machine, collects what has ended and goes on.
    void halt(uint32_t cycles, uint32_t watchdog)
    {
        halting = true;
        if (watchdog) {
            if (machine.weight.empty() || m2xfp_set_watchdog(&device, watchdog))
                fail("the watchdog cannot be tried");
            machine.weight.pop_back();
        } else {
            for (uint32_t i = 0; i < cycles; i++)
                machine.tick();
            if (m2xfp_halt(&device))
                fail("the machine does not halt");
        }
        while (m2xfp_outstanding(&device))
            collect();
        while (!machine.weight.empty() || !machine.activation.empty() || !machine.value.empty())
            machine.tick();
        resume();
        // A command that was under way has given a part of its results, in a packet that has ended.
        for (auto *beats : {&machine.rows, &machine.records}) {
            if (!beats->empty() && !beats->back().last)
                fail("a packet has not ended");
            beats->clear();
        }
        halting = false;
        if (m2xfp_set_watchdog(&device, 0) || m2xfp_clear_events(&device, M2XFP_EVENT_FAILED))
            fail("the machine does not go on");
    }

    template <typename Unpack> void drain(std::deque<Beat> &beats, size_t count, Unpack unpack)
    {
        if (beats.size() < count)
            fail("results are missing");
        for (size_t i = 0; i < count; i++) {
            if (unpack(beats.front().data) != 1 || beats.front().last != (i == count - 1))
                fail("a result is not where it belongs");
            beats.pop_front();
        }
    }

    void finish()
    {
        bool busy = m2xfp_outstanding(&device) != 0;
        uint64_t cycles;
        while (m2xfp_outstanding(&device))
            collect();
        if (m2xfp_read_cycles(&device, &cycles) || cycles > machine.cycles || (busy && !cycles))
            fail("the counter of cycles is wrong");
        // Nothing is left over, and nothing comes any more.
        for (int i = 0; i < 50; i++)
            machine.tick();
        if (!machine.weight.empty() || !machine.activation.empty() || !machine.value.empty()
            || !machine.rows.empty() || !machine.records.empty())
            fail("beats are left over");
    }

    void run()
    {
        uint32_t head[6];
        open();
        while (std::fread(head, 4, 6, jobs) == 6) {
            if (head[0] == 0)
                submit(head);
            else if (head[0] == 1)
                finish();
            else if (head[0] == 2) {
                for (uint32_t i = 0; i < head[1]; i++)
                    machine.tick();
                open();
            } else if (head[0] == 3)
                mismark = true;
            else if (head[0] == 4) {
                if (m2xfp_set_halt_on(&device, head[1]))
                    fail("cannot say what halts the machine");
            } else
                halt(head[1], head[2]);
        }
        finish();
        give(&seen, 4);
    }
};

int main(int argc, char **argv)
{
    if (argc < 3) {
        std::fprintf(stderr, "usage: simulation JOBS RESULTS [SEED [LOG]]\n");
        return 2;
    }
    static Session session;
    session.jobs = std::fopen(argv[1], "rb");
    session.results = std::fopen(argv[2], "wb");
    if (!session.jobs || !session.results)
        fail("cannot open the files");
    if (argc > 3)
        state = uint32_t(std::atoi(argv[3])) * 2u + 1u;
    if (argc > 4 && !(record = std::fopen(argv[4], "w")))
        fail("cannot open the log");
    session.run();
    if (record && std::fclose(record))
        fail("cannot write the log");
    std::fclose(session.jobs);
    if (std::fclose(session.results))
        fail("cannot write results");
    std::printf("%llu cycles\n", static_cast<unsigned long long>(session.machine.cycles));
}
