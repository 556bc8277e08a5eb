/* SPDX-License-Identifier: BSD-2-Clause */
/* See m2xfp.h. m2xfp_registers.h is what `python -m hw.generate axi_accelerator` writes. */
#include "m2xfp.h"

#include "m2xfp_registers.h"

#define IDENTIFIER 0x4d325846u /* M2XF in ASCII */

/* A register's field by name: FIELD(word, STATUS_FREE). */
#define FIELD(word, name) (((word) & M2XFP_##name##_MASK) >> M2XFP_##name##_SHIFT)

enum { WEIGHTS, ACTIVATIONS, RESULTS };

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint32_t m2xfp_group(const struct m2xfp_machine *machine)
{
    return machine->encoding == M2XFP_ENCODING_SG_SPECIAL64 ? 64 : 32;
}

/* Bytes of a group's metadata: of four subgroups with two bits, or of eight with three. */
static uint32_t metadata_bytes(uint32_t group)
{
    return group == 64 ? 3 : 1;
}

static size_t record_bytes(uint32_t group)
{
    return group / 2 + metadata_bytes(group) + 1;
}

/* ---- Plans ---- */

int m2xfp_check(const struct m2xfp_machine *machine, const struct m2xfp_command *command,
                const struct m2xfp_kept *kept)
{
    uint32_t group = m2xfp_group(machine);
    uint64_t records;

    if (command->m == 0 || command->k == 0 || command->n == 0)
        return M2XFP_BAD_SIZE;
    if (command->source > M2XFP_FROM_KEPT
        || (command->source == M2XFP_FROM_VALUES && machine->input == M2XFP_INPUT_NONE)
        || (command->source == M2XFP_FROM_KEPT && !machine->quantizes))
        return M2XFP_BAD_SOURCE;
    if (command->result > M2XFP_TO_KEEP
        || (command->result != M2XFP_TO_VALUES && !machine->quantizes))
        return M2XFP_BAD_RESULT;
    if (command->source == M2XFP_FROM_KEPT
        && (kept == NULL || kept->m != command->m || kept->n != command->k))
        return M2XFP_NOT_KEPT;
    /* The activations and the kept result lie side by side in the buffer. */
    records = (uint64_t)command->m * (ceil_div(command->k, group) + ceil_div(command->n, group));
    if (command->result == M2XFP_TO_KEEP
        && (command->m > machine->rows || records > machine->activations))
        return M2XFP_TOO_LARGE;
    return M2XFP_DONE;
}

struct m2xfp_kept m2xfp_kept_after(const struct m2xfp_command *command)
{
    struct m2xfp_kept kept = {0, 0};

    if (command->result == M2XFP_TO_KEEP) {
        kept.m = command->m;
        kept.n = command->n;
    }
    return kept;
}

/* Tiles of a bundle: at least eight rows lie between two sums of the same element. */
static uint32_t bundle(uint32_t rows)
{
    return rows >= 8 ? 1 : rows >= 4 ? 2 : rows >= 2 ? 4 : 8;
}

static uint32_t rows_of(const struct m2xfp_plan *plan, uint32_t block)
{
    return plan->rows + (block < plan->larger);
}

/* Columns that a tile has of the matrix. */
static uint32_t columns_of(const struct m2xfp_plan *plan, uint32_t tile)
{
    return least(plan->columns, plan->n - tile * plan->columns);
}

void m2xfp_make_plan(struct m2xfp_plan *plan, const struct m2xfp_machine *machine,
                     const struct m2xfp_command *command)
{
    uint32_t whole = machine->columns / machine->weight_width;
    uint32_t fit, limit;
    uint64_t more, others;

    plan->m = command->m;
    plan->n = command->n;
    plan->k = command->k;
    plan->group = m2xfp_group(machine);
    plan->columns = machine->columns;
    plan->weight_width = machine->weight_width;
    plan->groups = ceil_div(command->k, plan->group);
    plan->tiles = ceil_div(command->n, machine->columns);
    fit = machine->activations / plan->groups;
    plan->resident = command->m <= fit || fit >= whole;
    limit = plan->resident ? least(fit, machine->rows) : machine->rows;
    plan->blocks = ceil_div(command->m, limit);
    plan->rows = command->m / plan->blocks;
    plan->larger = command->m % plan->blocks;

    plan->weight_beats = (uint64_t)plan->blocks * plan->groups
        * ((uint64_t)(plan->tiles - 1) * whole
           + ceil_div(columns_of(plan, plan->tiles - 1), machine->weight_width));
    plan->result_beats = (uint64_t)plan->m * plan->tiles;
    plan->activation_beats = (uint64_t)plan->m * plan->groups;
    if (!plan->resident) {
        /* Once more for every bundle of the block. */
        more = (uint64_t)plan->larger * (plan->rows + 1)
               * ceil_div(plan->tiles, bundle(plan->rows + 1));
        others = (uint64_t)(plan->blocks - plan->larger) * plan->rows
                 * ceil_div(plan->tiles, bundle(plan->rows));
        plan->activation_beats = (more + others) * plan->groups;
    }
    if (command->source == M2XFP_FROM_KEPT)
        plan->activation_beats = 0;
    if (command->result == M2XFP_TO_KEEP)
        plan->result_beats = 0;
}

/* ---- Order ---- */

static void begin(struct m2xfp_walk *walk, const struct m2xfp_plan *plan, uint32_t kind,
                  uint64_t beats)
{
    walk->plan = plan;
    walk->kind = kind;
    walk->block = walk->first = walk->from = walk->group = walk->tile = walk->index = 0;
    walk->at_end = beats == 0;
}

void m2xfp_walk_weights(struct m2xfp_walk *walk, const struct m2xfp_plan *plan)
{
    begin(walk, plan, WEIGHTS, plan->weight_beats);
}

void m2xfp_walk_activations(struct m2xfp_walk *walk, const struct m2xfp_plan *plan)
{
    begin(walk, plan, ACTIVATIONS, plan->activation_beats);
}

void m2xfp_walk_results(struct m2xfp_walk *walk, const struct m2xfp_plan *plan)
{
    begin(walk, plan, RESULTS, plan->result_beats);
}

/* Goes on to the next block of rows, or to the end. */
static void next_block(struct m2xfp_walk *walk)
{
    walk->first += rows_of(walk->plan, walk->block);
    walk->from = walk->tile = walk->group = walk->index = 0;
    walk->block++;
    walk->at_end = walk->block == walk->plan->blocks;
}

/* Inside a bundle the groups are the outer loop and the tiles the inner one. */
static void next_weights(struct m2xfp_walk *walk, struct m2xfp_beat *beat)
{
    const struct m2xfp_plan *plan = walk->plan;
    uint32_t width = plan->weight_width, used = columns_of(plan, walk->tile);
    uint32_t to = least(walk->from + bundle(rows_of(plan, walk->block)), plan->tiles);

    beat->row = walk->tile * plan->columns + walk->index * width;
    beat->count = least(width, used - walk->index * width);
    beat->group = walk->group;
    beat->tile = walk->tile;
    walk->index++;
    if (walk->index * width < used)
        return;
    walk->index = 0;
    walk->tile++;
    if (walk->tile < to)
        return;
    walk->tile = walk->from;
    walk->group++;
    if (walk->group < plan->groups)
        return;
    walk->group = 0;
    walk->from = walk->tile = to;
    if (to == plan->tiles)
        next_block(walk);
}

/* Activations that are not resident come again for every bundle. */
static void next_activation(struct m2xfp_walk *walk, struct m2xfp_beat *beat)
{
    const struct m2xfp_plan *plan = walk->plan;
    uint32_t rows = rows_of(plan, walk->block);

    beat->row = walk->first + walk->index;
    beat->count = 1;
    beat->group = walk->group;
    beat->tile = 0;
    walk->index++;
    if (walk->index < rows)
        return;
    walk->index = 0;
    walk->group++;
    if (walk->group < plan->groups)
        return;
    walk->group = 0;
    walk->from += bundle(rows);
    if (plan->resident || walk->from >= plan->tiles)
        next_block(walk);
}

static void next_result(struct m2xfp_walk *walk, struct m2xfp_beat *beat)
{
    const struct m2xfp_plan *plan = walk->plan;

    beat->row = walk->first + walk->index;
    beat->count = 1;
    beat->group = 0;
    beat->tile = walk->tile;
    walk->index++;
    if (walk->index < rows_of(plan, walk->block))
        return;
    walk->index = 0;
    walk->tile++;
    if (walk->tile == plan->tiles)
        next_block(walk);
}

int m2xfp_walk_next(struct m2xfp_walk *walk, struct m2xfp_beat *beat)
{
    if (walk->at_end)
        return 0;
    if (walk->kind == WEIGHTS)
        next_weights(walk, beat);
    else if (walk->kind == ACTIVATIONS)
        next_activation(walk, beat);
    else
        next_result(walk, beat);
    beat->last = walk->at_end;
    return 1;
}

/* ---- Packing ---- */

size_t m2xfp_record_bytes(const struct m2xfp_machine *machine)
{
    return record_bytes(m2xfp_group(machine));
}

size_t m2xfp_weight_bytes(const struct m2xfp_machine *machine)
{
    return machine->weight_width * m2xfp_record_bytes(machine);
}

static size_t element_bytes(const struct m2xfp_machine *machine)
{
    return machine->input == M2XFP_INPUT_FLOAT32 ? 4 : machine->input ? 2 : 0;
}

size_t m2xfp_value_bytes(const struct m2xfp_machine *machine)
{
    return m2xfp_group(machine) * element_bytes(machine);
}

size_t m2xfp_result_bytes(const struct m2xfp_machine *machine)
{
    return (size_t)machine->columns * 4;
}

/* Writes the record of a row and a group. */
static void pack_record(const struct m2xfp_planes *planes, const struct m2xfp_plan *plan,
                        uint32_t row, uint32_t group, uint8_t *record)
{
    size_t at = (size_t)row * plan->groups + group;
    size_t elements = plan->group / 2, metadata = metadata_bytes(plan->group), byte;

    for (byte = 0; byte < elements; byte++)
        *record++ = planes->elements[elements * at + byte];
    for (byte = 0; byte < metadata; byte++)
        *record++ = planes->metadata[metadata * at + byte];
    *record = planes->scales[at];
}

size_t m2xfp_pack_weights(struct m2xfp_walk *walk, const struct m2xfp_planes *w, uint8_t *buffer,
                          size_t size)
{
    uint32_t width = walk->plan->weight_width, column;
    size_t one = record_bytes(walk->plan->group), bytes = width * one, beats = 0, byte;
    struct m2xfp_beat beat;

    while (size / bytes > beats && m2xfp_walk_next(walk, &beat)) {
        uint8_t *record = buffer + beats * bytes;

        for (column = 0; column < beat.count; column++, record += one)
            pack_record(w, walk->plan, beat.row + column, beat.group, record);
        for (; column < width; column++)
            for (byte = 0; byte < one; byte++)
                *record++ = 0;
        beats++;
    }
    return beats;
}

size_t m2xfp_pack_activations(struct m2xfp_walk *walk, const struct m2xfp_planes *a,
                              uint8_t *buffer, size_t size)
{
    size_t bytes = record_bytes(walk->plan->group), beats = 0;
    struct m2xfp_beat beat;

    while (size / bytes > beats && m2xfp_walk_next(walk, &beat)) {
        pack_record(a, walk->plan, beat.row, beat.group, buffer + beats * bytes);
        beats++;
    }
    return beats;
}

static uint32_t bits_of(float value)
{
    union { float value; uint32_t bits; } both;

    both.value = value;
    return both.bits;
}

static float float_of(uint32_t bits)
{
    union { float value; uint32_t bits; } both;

    both.bits = bits;
    return both.value;
}

/* Removes low bits; the nearest rest, ties to even. `shift` is 1 to 24. */
static uint32_t round_off(uint32_t bits, uint32_t shift)
{
    uint32_t rest = bits & ((1u << shift) - 1), half = 1u << (shift - 1);

    bits >>= shift;
    return bits + (rest > half || (rest == half && (bits & 1)));
}

uint16_t m2xfp_to_bfloat16(float value)
{
    uint32_t bits = bits_of(value);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    /* A carry goes into the exponent, up to infinity; the sign is out of its reach. */
    return (uint16_t)round_off(bits, 16);
}

uint16_t m2xfp_to_float16(float value)
{
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u;
    uint32_t exponent = bits >> 23 & 0xffu, fraction = bits & 0x7fffffu;

    if (exponent == 255)
        return (uint16_t)(sign | 0x7c00u | (fraction ? 0x200u | fraction >> 13 : 0));
    /* From 2^16 on; what rounds up to that becomes infinity by its carry. */
    if (exponent >= 127 + 16)
        return (uint16_t)(sign | 0x7c00u);
    if (exponent >= 127 - 14)
        return (uint16_t)(sign | round_off((exponent - 112) << 23 | fraction, 13));
    /* Subnormal, in units of 2^-24; below 2^-25 nothing is left. */
    if (exponent < 127 - 25)
        return (uint16_t)sign;
    return (uint16_t)(sign | round_off(fraction | 0x800000u, 126 - exponent));
}

static uint32_t convert(uint32_t input, float value)
{
    return input == M2XFP_INPUT_FLOAT32 ? bits_of(value)
           : input == M2XFP_INPUT_BFLOAT16 ? m2xfp_to_bfloat16(value) : m2xfp_to_float16(value);
}

size_t m2xfp_pack_values(struct m2xfp_walk *walk, const struct m2xfp_machine *machine,
                         const float *x, size_t stride, uint8_t *buffer, size_t size)
{
    size_t width = element_bytes(machine), bytes = m2xfp_value_bytes(machine), beats = 0, byte;
    struct m2xfp_beat beat;
    uint32_t lane;

    while (bytes && size / bytes > beats && m2xfp_walk_next(walk, &beat)) {
        uint8_t *at = buffer + beats * bytes;

        for (lane = 0; lane < walk->plan->group; lane++) {
            uint32_t column = beat.group * walk->plan->group + lane, bits = 0;

            if (column < walk->plan->k)
                bits = convert(machine->input, x[beat.row * stride + column]);
            for (byte = 0; byte < width; byte++)
                *at++ = (uint8_t)(bits >> 8 * byte & 0xffu);
        }
        beats++;
    }
    return beats;
}

size_t m2xfp_unpack_values(struct m2xfp_walk *walk, const uint8_t *buffer, size_t size, float *y,
                           size_t stride)
{
    const struct m2xfp_plan *plan = walk->plan;
    size_t bytes = (size_t)plan->columns * 4, beats = 0;
    struct m2xfp_beat beat;
    uint32_t column;

    while (size / bytes > beats && m2xfp_walk_next(walk, &beat)) {
        const uint8_t *at = buffer + beats * bytes;
        float *row = y + beat.row * stride + (size_t)beat.tile * plan->columns;

        for (column = 0; column < columns_of(plan, beat.tile); column++, at += 4)
            row[column] = float_of((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16
                                   | (uint32_t)at[3] << 24);
        beats++;
    }
    return beats;
}

size_t m2xfp_unpack_records(struct m2xfp_walk *walk, const uint8_t *buffer, size_t size,
                            const struct m2xfp_result_planes *y)
{
    uint32_t group = walk->plan->group;
    size_t elements = group / 2, metadata = metadata_bytes(group), bytes = record_bytes(group);
    size_t beats = 0, byte;
    struct m2xfp_beat beat;

    while (size / bytes > beats && m2xfp_walk_next(walk, &beat)) {
        const uint8_t *record = buffer + beats * bytes;
        /* A machine that gives records has as many columns as a group elements: a tile is a group. */
        size_t at = (size_t)beat.row * walk->plan->tiles + beat.tile;

        for (byte = 0; byte < elements; byte++)
            y->elements[elements * at + byte] = *record++;
        for (byte = 0; byte < metadata; byte++)
            y->metadata[metadata * at + byte] = *record++;
        y->scales[at] = *record;
        beats++;
    }
    return beats;
}

/* ---- Commands over registers ---- */

static int memory_read(void *context, uint32_t offset, uint32_t *value)
{
    *value = ((const struct m2xfp_memory *)context)->base[offset / 4];
    return 0;
}

static int memory_write(void *context, uint32_t offset, uint32_t value)
{
    ((const struct m2xfp_memory *)context)->base[offset / 4] = value;
    return 0;
}

struct m2xfp_bus m2xfp_memory_bus(struct m2xfp_memory *memory)
{
    struct m2xfp_bus bus;

    bus.context = memory;
    bus.read32 = memory_read;
    bus.write32 = memory_write;
    return bus;
}

static int get(const struct m2xfp_device *device, uint32_t offset, uint32_t *value)
{
    return device->bus.read32(device->bus.context, offset, value) ? M2XFP_ERROR_BUS : 0;
}

static int put(const struct m2xfp_device *device, uint32_t offset, uint32_t value)
{
    return device->bus.write32(device->bus.context, offset, value) ? M2XFP_ERROR_BUS : 0;
}

int m2xfp_open(struct m2xfp_device *device, const struct m2xfp_bus *bus)
{
    struct m2xfp_machine *machine = &device->machine;
    uint32_t identifier, version, config, status;

    device->bus = *bus;
    device->kept.m = device->kept.n = 0;
    device->oldest = device->started = 0;
    device->halt_on = 0;
    if (get(device, M2XFP_ID_OFFSET, &identifier))
        return M2XFP_ERROR_BUS;
    if (identifier != IDENTIFIER)
        return M2XFP_ERROR_ID;
    if (get(device, M2XFP_VERSION_OFFSET, &version))
        return M2XFP_ERROR_BUS;
    if (FIELD(version, VERSION_MAJOR) != 1)
        return M2XFP_ERROR_VERSION;
    device->minor = FIELD(version, VERSION_MINOR);
    if (get(device, M2XFP_CONFIG_OFFSET, &config)
        || get(device, M2XFP_ACTIVATIONS_OFFSET, &machine->activations)
        || get(device, M2XFP_WEIGHTS_OFFSET, &machine->weights)
        || get(device, M2XFP_ROWS_OFFSET, &machine->rows)
        || get(device, M2XFP_STATUS_OFFSET, &status)
        || (device->minor >= 2 && get(device, M2XFP_HALT_ON_OFFSET, &device->halt_on)))
        return M2XFP_ERROR_BUS;
    device->halted = FIELD(status, STATUS_HALTING);
    machine->columns = FIELD(config, CONFIG_COLUMNS);
    machine->weight_width = FIELD(config, CONFIG_WEIGHT_WIDTH);
    machine->input = FIELD(config, CONFIG_INPUT);
    machine->quantizes = FIELD(config, CONFIG_QUANTIZES);
    machine->framed = FIELD(config, CONFIG_FRAMED);
    machine->encoding = FIELD(config, CONFIG_ENCODING);
    if (!machine->columns || !machine->weight_width || !machine->activations || !machine->rows)
        return M2XFP_ERROR_ID;
    return FIELD(status, STATUS_FREE) == M2XFP_QUEUE ? 0 : M2XFP_ERROR_STATE;
}

int m2xfp_submit(struct m2xfp_device *device, const struct m2xfp_command *command, int *status)
{
    int code;

    if (command->m > M2XFP_SIZE_LIMIT || command->k > M2XFP_SIZE_LIMIT
        || command->n > M2XFP_SIZE_LIMIT || command->source > 3 || command->result > 3)
        return M2XFP_ERROR_ARGUMENT;
    if (device->halted)
        return M2XFP_HALTED;
    if (device->started == M2XFP_QUEUE)
        return M2XFP_FULL;
    if (put(device, M2XFP_M_OFFSET, command->m) || put(device, M2XFP_K_OFFSET, command->k)
        || put(device, M2XFP_N_OFFSET, command->n)
        || put(device, M2XFP_COMMAND_OFFSET,
               command->source << M2XFP_COMMAND_SOURCE_SHIFT
               | command->result << M2XFP_COMMAND_RESULT_SHIFT))
        return M2XFP_ERROR_BUS;
    code = m2xfp_check(&device->machine, command, &device->kept);
    /* Only a command that runs changes what is kept. */
    if (code == M2XFP_DONE)
        device->kept = m2xfp_kept_after(command);
    else
        device->halted = device->halt_on & M2XFP_HALT_ON_FAILED;
    device->expected[(device->oldest + device->started) % M2XFP_QUEUE] = code;
    device->started++;
    *status = code;
    return 0;
}

int m2xfp_collect(struct m2xfp_device *device)
{
    uint32_t result;
    int code, expected;

    if (get(device, M2XFP_RESULT_OFFSET, &result))
        return M2XFP_ERROR_BUS;
    if (!FIELD(result, RESULT_VALID))
        return M2XFP_WAITING;
    if (put(device, M2XFP_POP_OFFSET, M2XFP_POP_POP_MASK))
        return M2XFP_ERROR_BUS;
    if (!device->started)
        return M2XFP_ERROR_UNEXPECTED;
    code = (int)FIELD(result, RESULT_CODE);
    expected = device->expected[device->oldest];
    device->oldest = (device->oldest + 1) % M2XFP_QUEUE;
    device->started--;
    /* What no command can be foreseen to end with: something has halted the machine. */
    if (device->minor >= 2 && code > M2XFP_TOO_LARGE) {
        device->halted = 1;
        return code;
    }
    return code == expected ? code : M2XFP_ERROR_UNEXPECTED;
}

uint32_t m2xfp_outstanding(const struct m2xfp_device *device)
{
    return device->started;
}

int m2xfp_halt(struct m2xfp_device *device)
{
    if (device->minor < 2)
        return M2XFP_ERROR_VERSION;
    device->halted = 1;
    return put(device, M2XFP_HALT_OFFSET, M2XFP_HALT_HALT_MASK);
}

int m2xfp_resume(struct m2xfp_device *device)
{
    uint32_t status;

    if (device->minor < 2)
        return M2XFP_ERROR_VERSION;
    if (!device->halted)
        return 0;
    if (device->started)
        return M2XFP_WAITING;
    if (get(device, M2XFP_STATUS_OFFSET, &status))
        return M2XFP_ERROR_BUS;
    if (!FIELD(status, STATUS_HALTED))
        return M2XFP_WAITING;
    if (put(device, M2XFP_HALT_OFFSET, M2XFP_HALT_RESUME_MASK))
        return M2XFP_ERROR_BUS;
    device->kept.m = device->kept.n = 0;
    device->halted = 0;
    return 0;
}

int m2xfp_set_halt_on(struct m2xfp_device *device, uint32_t causes)
{
    if (device->minor < 2)
        return M2XFP_ERROR_VERSION;
    if (put(device, M2XFP_HALT_ON_OFFSET, causes))
        return M2XFP_ERROR_BUS;
    device->halt_on = causes;
    return 0;
}

int m2xfp_set_watchdog(const struct m2xfp_device *device, uint32_t cycles)
{
    if (device->minor < 2)
        return M2XFP_ERROR_VERSION;
    return put(device, M2XFP_WATCHDOG_OFFSET, cycles);
}

int m2xfp_events(const struct m2xfp_device *device, uint32_t *events)
{
    if (device->minor < 1)
        return M2XFP_ERROR_VERSION;
    return get(device, M2XFP_INTERRUPT_PENDING_OFFSET, events);
}

int m2xfp_set_interrupts(const struct m2xfp_device *device, uint32_t events)
{
    if (device->minor < 1)
        return M2XFP_ERROR_VERSION;
    return put(device, M2XFP_INTERRUPT_MASK_OFFSET, events);
}

int m2xfp_clear_events(const struct m2xfp_device *device, uint32_t events)
{
    if (device->minor < 1)
        return M2XFP_ERROR_VERSION;
    return put(device, M2XFP_INTERRUPT_PENDING_OFFSET, events);
}

int m2xfp_read_cycles(const struct m2xfp_device *device, uint64_t *cycles)
{
    uint32_t low, high;

    /* The read of the lower half stores the upper one. */
    if (get(device, M2XFP_CYCLES_LOW_OFFSET, &low) || get(device, M2XFP_CYCLES_HIGH_OFFSET, &high))
        return M2XFP_ERROR_BUS;
    *cycles = (uint64_t)high << 32 | low;
    return 0;
}
