/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A driver of the accelerator in C99: plans, the order of operands and results, packing, and
 * commands over the registers of the AXI machine. It allocates nothing, keeps no globals and needs
 * no library, so it also compiles as freestanding code. Streams of data are the caller's: it moves
 * the beats that are packed here, by DMA or otherwise.
 *
 * "Section N" is docs/specification; sections 13 to 16 say all that this driver knows.
 */
#ifndef M2XFP_H
#define M2XFP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define M2XFP_SIZE_LIMIT 0xfffffu
#define M2XFP_QUEUE 4u /* commands that can be on their way */

/* Sources and results of a command (section 14.2). */
enum m2xfp_source { M2XFP_FROM_RECORDS = 0, M2XFP_FROM_VALUES = 1, M2XFP_FROM_KEPT = 2 };
enum m2xfp_result { M2XFP_TO_VALUES = 0, M2XFP_TO_RECORDS = 1, M2XFP_TO_KEEP = 2 };

/* Types of the values that a machine takes, as in the register CONFIG. */
enum m2xfp_input {
    M2XFP_INPUT_NONE = 0,
    M2XFP_INPUT_FLOAT32 = 1,
    M2XFP_INPUT_BFLOAT16 = 2,
    M2XFP_INPUT_FLOAT16 = 3
};

/* Encodings of the activations of a machine, as in the register CONFIG. */
enum m2xfp_encoding {
    M2XFP_ENCODING_ELEM_EM = 0,
    M2XFP_ENCODING_SG_EM = 1,
    M2XFP_ENCODING_SG_SPECIAL = 2,
    M2XFP_ENCODING_SG_SPECIAL64 = 3
};

/*
 * What functions return: how a command ended (sections 14.3 and 15.9), or, below 0, why there is no
 * answer.
 */
enum {
    M2XFP_DONE = 0,
    M2XFP_BAD_SIZE = 1,
    M2XFP_BAD_SOURCE = 2,
    M2XFP_BAD_RESULT = 3,
    M2XFP_NOT_KEPT = 4,
    M2XFP_TOO_LARGE = 5,
    M2XFP_ABORTED = 6,           /* the machine halted */
    M2XFP_TIMEOUT = 7,           /* nothing moved for as long as the watchdog says */
    M2XFP_MISFRAMED = 14,        /* an operand was marked wrongly */
    M2XFP_ERROR_BUS = -1,        /* a callback failed, or the machine answered with an error */
    M2XFP_ERROR_ID = -2,         /* there is no such machine at this address */
    M2XFP_ERROR_VERSION = -3,    /* its registers are not those that this driver knows */
    M2XFP_ERROR_STATE = -4,      /* commands are on their way; reset the machine */
    M2XFP_ERROR_ARGUMENT = -5,   /* a size above M2XFP_SIZE_LIMIT, a source or result above 3 */
    M2XFP_ERROR_UNEXPECTED = -6, /* a command ended otherwise than it should have; reset */
    M2XFP_FULL = -7,             /* no command is free: take a result first */
    M2XFP_WAITING = -8,          /* no command has ended, or the machine has not come to rest */
    M2XFP_HALTED = -9            /* collect all commands, then resume */
};

/* What halts the machine, as in the register HALT_ON. */
enum { M2XFP_HALT_ON_FAILED = 1, M2XFP_HALT_ON_MISFRAMED = 2 };

/* Events of the registers INTERRUPT_PENDING and INTERRUPT_MASK (section 15.8). */
enum {
    M2XFP_EVENT_DONE = 1,     /* a result waits */
    M2XFP_EVENT_FREE = 2,     /* a command can be started */
    M2XFP_EVENT_FAILED = 4,   /* a command did not run; stays until it is cleared */
    M2XFP_EVENT_MISFRAMED = 8 /* a mark of an operand stream was wrong; stays likewise */
};

/* Sizes of a machine (section 8.14). */
struct m2xfp_machine {
    uint32_t columns;
    uint32_t weight_width;
    uint32_t activations;
    uint32_t weights;
    uint32_t rows;
    uint32_t input;     /* enum m2xfp_input */
    uint32_t quantizes; /* whether it has KEPT, RECORDS and KEEP */
    uint32_t framed;    /* whether operand streams carry tlast */
    uint32_t encoding;  /* enum m2xfp_encoding */
};

/* Elements of a group: 64 in Sg-special64, else 32. */
uint32_t m2xfp_group(const struct m2xfp_machine *machine);

/* A product of M x K activations and N x K weights. */
struct m2xfp_command {
    uint32_t m, k, n;
    uint32_t source; /* enum m2xfp_source */
    uint32_t result; /* enum m2xfp_result */
};

/* The result that a machine keeps: M rows of N columns; 0 rows if it keeps none. */
struct m2xfp_kept {
    uint32_t m, n;
};

/* ---- Plans (sections 14.3 and 14.6) ---- */

/* How a product is divided, and how many beats each stream carries for it. */
struct m2xfp_plan {
    uint32_t m, n, k;
    uint32_t groups, tiles;
    uint32_t group;                 /* elements of a group */
    uint32_t columns, weight_width; /* of the machine */
    uint32_t resident;
    uint32_t blocks, rows, larger; /* blocks of rows; the first `larger` have one row more */
    uint64_t weight_beats;
    uint64_t activation_beats; /* records, or groups of values; not for source KEPT */
    uint64_t result_beats;     /* rows of one tile; not for result KEEP */
};

/* The status with which a command ends, as the machine gives it. `kept` may be NULL for none. */
int m2xfp_check(const struct m2xfp_machine *machine, const struct m2xfp_command *command,
                const struct m2xfp_kept *kept);

/* What is kept after a command that ended with DONE. */
struct m2xfp_kept m2xfp_kept_after(const struct m2xfp_command *command);

/* Plans a command that runs: m2xfp_check gives M2XFP_DONE for it. */
void m2xfp_make_plan(struct m2xfp_plan *plan, const struct m2xfp_machine *machine,
                     const struct m2xfp_command *command);

/* ---- Order (sections 14.7 and 14.8) ---- */

/* What one beat of a stream carries. */
struct m2xfp_beat {
    uint32_t row;   /* row of A or of the result; first of the rows of W */
    uint32_t count; /* rows of W that there are; 1 for the others */
    uint32_t group; /* group along K; not for results */
    uint32_t tile;  /* tile along N; not for activations */
    uint32_t last;  /* whether it is the last one of the command on this stream: tlast */
};

/* A place in the order of a stream. Its members are the driver's. */
struct m2xfp_walk {
    const struct m2xfp_plan *plan;
    uint32_t kind, block, first, from, group, tile, index;
    uint32_t at_end;
};

/* Begins the order of a stream. The plan must outlive the walk. */
void m2xfp_walk_weights(struct m2xfp_walk *walk, const struct m2xfp_plan *plan);
void m2xfp_walk_activations(struct m2xfp_walk *walk, const struct m2xfp_plan *plan);
void m2xfp_walk_results(struct m2xfp_walk *walk, const struct m2xfp_plan *plan);

/* The next beat. Returns 1, or 0 after the last one, and leaves `beat` as it is then. */
int m2xfp_walk_next(struct m2xfp_walk *walk, struct m2xfp_beat *beat);

/* ---- Packing (sections 13 and 16.4) ---- */

/*
 * A quantized matrix as three planes (section 13.1), with ceil(K / 32) groups to a row: per group
 * 16 bytes of elements, one of metadata and one scale. In Sg-special64 there are ceil(K / 64)
 * groups, of 32 bytes, three and one.
 */
struct m2xfp_planes {
    const uint8_t *elements, *metadata, *scales;
};
struct m2xfp_result_planes {
    uint8_t *elements, *metadata, *scales;
};

/*
 * Bytes of a beat: tdata of s_axis_activation and m_axis_record, which carry a record of 18 bytes, or
 * 36 in Sg-special64 (sections 13.3 and 18.1); of s_axis_weight, s_axis_value and m_axis.
 */
size_t m2xfp_record_bytes(const struct m2xfp_machine *machine);
size_t m2xfp_weight_bytes(const struct m2xfp_machine *machine);
size_t m2xfp_value_bytes(const struct m2xfp_machine *machine);
size_t m2xfp_result_bytes(const struct m2xfp_machine *machine);

/*
 * Packs the next beats of a stream into a buffer, as many as fit and are left, and returns how many.
 * So operands of any size go through a buffer of a single beat. Rows of W that do not exist and
 * only fill up a beat are zeros.
 */
size_t m2xfp_pack_weights(struct m2xfp_walk *walk, const struct m2xfp_planes *w, uint8_t *buffer,
                          size_t size);
size_t m2xfp_pack_activations(struct m2xfp_walk *walk, const struct m2xfp_planes *a,
                              uint8_t *buffer, size_t size);

/*
 * The same for values: `x` has M rows of K floats, one row every `stride` floats. They are rounded
 * to the machine's input type, and filled up with +0 to whole groups.
 */
size_t m2xfp_pack_values(struct m2xfp_walk *walk, const struct m2xfp_machine *machine,
                         const float *x, size_t stride, uint8_t *buffer, size_t size);

/*
 * Takes beats of results from a buffer and puts them where they belong, and returns how many it
 * took. `y` has M rows of N floats, one row every `stride` floats. Records become planes, with
 * ceil(N / group) groups to a row.
 */
size_t m2xfp_unpack_values(struct m2xfp_walk *walk, const uint8_t *buffer, size_t size, float *y,
                           size_t stride);
size_t m2xfp_unpack_records(struct m2xfp_walk *walk, const uint8_t *buffer, size_t size,
                            const struct m2xfp_result_planes *y);

/* The nearest value of a smaller type, ties to even. NaN stays NaN. */
uint16_t m2xfp_to_bfloat16(float value);
uint16_t m2xfp_to_float16(float value);

/* ---- Commands over registers (section 15) ---- */

/* How registers are reached. Both functions return 0, or another number if the access failed. */
struct m2xfp_bus {
    void *context;
    int (*read32)(void *context, uint32_t offset, uint32_t *value);
    int (*write32)(void *context, uint32_t offset, uint32_t value);
};

/* Registers that are memory: `context` points at the base address. */
struct m2xfp_memory {
    volatile uint32_t *base;
};
struct m2xfp_bus m2xfp_memory_bus(struct m2xfp_memory *memory);

/* A machine under this driver. Its members are the driver's, but for reading `machine`. */
struct m2xfp_device {
    struct m2xfp_bus bus;
    struct m2xfp_machine machine;
    uint32_t minor;
    struct m2xfp_kept kept; /* after all commands that were started */
    int expected[M2XFP_QUEUE];
    uint32_t oldest, started;
    uint32_t halt_on; /* as in the register HALT_ON; 0 before version 1.2 */
    uint32_t halted;  /* whether the machine halts once the commands before have ended */
};

/*
 * Finds out what machine there is and begins to drive it. Call it after each reset of the machine,
 * too: a reset is a wire, and takes all commands, kept results and operands away.
 */
int m2xfp_open(struct m2xfp_device *device, const struct m2xfp_bus *bus);

/*
 * Starts a command. Returns 0, M2XFP_FULL, M2XFP_HALTED or an error. `status` says how the command
 * is going to end unless something halts the machine before: send operands only if that is
 * M2XFP_DONE. Also commands that cannot run are started; they give their status like others. Behind
 * one the machine halts, and no command is started before m2xfp_resume.
 */
int m2xfp_submit(struct m2xfp_device *device, const struct m2xfp_command *command, int *status);

/* Takes the status of the oldest command: M2XFP_DONE and so on, M2XFP_WAITING or an error. */
int m2xfp_collect(struct m2xfp_device *device);

/* Commands that have been started and not collected. */
uint32_t m2xfp_outstanding(const struct m2xfp_device *device);

/*
 * Halts (section 15.9), from version 1.2 on. A machine that halts ends its commands, throws operands
 * away and keeps no result. It halts when m2xfp_halt says so, by default when a command fails or an
 * operand is marked wrongly, and after so many cycles in which a command runs and nothing moves; 0,
 * the default, is for never.
 *
 * To go on: collect all commands; take the results that come, as each packet that has begun ends;
 * wait until all senders of operands have sent what they have, or stop them; then call m2xfp_resume
 * until it returns something else than M2XFP_WAITING.
 */
int m2xfp_halt(struct m2xfp_device *device);
int m2xfp_resume(struct m2xfp_device *device);
int m2xfp_set_halt_on(struct m2xfp_device *device, uint32_t causes);
int m2xfp_set_watchdog(const struct m2xfp_device *device, uint32_t cycles);

/* Events that are pending; those that raise the interrupt line; clears FAILED and MISFRAMED. */
int m2xfp_events(const struct m2xfp_device *device, uint32_t *events);
int m2xfp_set_interrupts(const struct m2xfp_device *device, uint32_t events);
int m2xfp_clear_events(const struct m2xfp_device *device, uint32_t events);

/* Cycles since reset in which a command was running. */
int m2xfp_read_cycles(const struct m2xfp_device *device, uint64_t *cycles);

#ifdef __cplusplus
}
#endif

#endif
