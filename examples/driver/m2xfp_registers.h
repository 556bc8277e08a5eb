/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef M2XFP_REGISTERS_H
#define M2XFP_REGISTERS_H

#include <stdint.h>

/* ID: read */
#define M2XFP_ID_OFFSET 0x00u
/* M2XF in ASCII */
#define M2XFP_ID_LETTERS_MASK 0xffffffffu
#define M2XFP_ID_LETTERS_SHIFT 0

/* VERSION: read */
#define M2XFP_VERSION_OFFSET 0x04u
/* Counts additions to this table */
#define M2XFP_VERSION_MINOR_MASK 0x0000ffffu
#define M2XFP_VERSION_MINOR_SHIFT 0
/* Counts changes that old drivers do not survive */
#define M2XFP_VERSION_MAJOR_MASK 0xffff0000u
#define M2XFP_VERSION_MAJOR_SHIFT 16

/* CONFIG: read */
#define M2XFP_CONFIG_OFFSET 0x08u
/* Columns of the array, float32 values per transfer of results */
#define M2XFP_CONFIG_COLUMNS_MASK 0x000000ffu
#define M2XFP_CONFIG_COLUMNS_SHIFT 0
/* Weight records per transfer */
#define M2XFP_CONFIG_WEIGHT_WIDTH_MASK 0x0000ff00u
#define M2XFP_CONFIG_WEIGHT_WIDTH_SHIFT 8
/* Type of the values that source VALUES takes */
#define M2XFP_CONFIG_INPUT_MASK 0x00030000u
#define M2XFP_CONFIG_INPUT_SHIFT 16
#define M2XFP_CONFIG_INPUT_NONE 0u
#define M2XFP_CONFIG_INPUT_FLOAT32 1u
#define M2XFP_CONFIG_INPUT_BFLOAT16 2u
#define M2XFP_CONFIG_INPUT_FLOAT16 3u
/* Whether there are results RECORDS and KEEP */
#define M2XFP_CONFIG_QUANTIZES_MASK 0x00040000u
#define M2XFP_CONFIG_QUANTIZES_SHIFT 18
/* Whether operand streams mark the last transfer of a command */
#define M2XFP_CONFIG_FRAMED_MASK 0x00080000u
#define M2XFP_CONFIG_FRAMED_SHIFT 19
/* Encoding of the activations */
#define M2XFP_CONFIG_ENCODING_MASK 0x00300000u
#define M2XFP_CONFIG_ENCODING_SHIFT 20
#define M2XFP_CONFIG_ENCODING_ELEM_EM 0u
#define M2XFP_CONFIG_ENCODING_SG_EM 1u
#define M2XFP_CONFIG_ENCODING_SG_SPECIAL 2u
#define M2XFP_CONFIG_ENCODING_SG_SPECIAL64 3u
/* What encodes values and results in factors */
#define M2XFP_CONFIG_ENGINE_MASK 0x01c00000u
#define M2XFP_CONFIG_ENGINE_SHIFT 22
#define M2XFP_CONFIG_ENGINE_NONE 0u
#define M2XFP_CONFIG_ENGINE_SG_THRESHOLD 1u
#define M2XFP_CONFIG_ENGINE_SG_EM 2u
#define M2XFP_CONFIG_ENGINE_SG_SPECIAL 3u
#define M2XFP_CONFIG_ENGINE_SG_SPECIAL64 4u

/* ACTIVATIONS: read */
#define M2XFP_ACTIVATIONS_OFFSET 0x0cu
/* Group records that the activation buffer holds */
#define M2XFP_ACTIVATIONS_SIZE_MASK 0xffffffffu
#define M2XFP_ACTIVATIONS_SIZE_SHIFT 0

/* WEIGHTS: read */
#define M2XFP_WEIGHTS_OFFSET 0x10u
/* Group records that the weight buffer holds */
#define M2XFP_WEIGHTS_SIZE_MASK 0xffffffffu
#define M2XFP_WEIGHTS_SIZE_SHIFT 0

/* ROWS: read */
#define M2XFP_ROWS_OFFSET 0x14u
/* Rows of partial sums that the output buffer holds */
#define M2XFP_ROWS_SIZE_MASK 0xffffffffu
#define M2XFP_ROWS_SIZE_SHIFT 0

/* M: read, write */
#define M2XFP_M_OFFSET 0x20u
/* M of the next command: rows of activations */
#define M2XFP_M_SIZE_MASK 0x000fffffu
#define M2XFP_M_SIZE_SHIFT 0

/* K: read, write */
#define M2XFP_K_OFFSET 0x24u
/* K of the next command: length of the dot products */
#define M2XFP_K_SIZE_MASK 0x000fffffu
#define M2XFP_K_SIZE_SHIFT 0

/* N: read, write */
#define M2XFP_N_OFFSET 0x28u
/* N of the next command: rows of weights */
#define M2XFP_N_SIZE_MASK 0x000fffffu
#define M2XFP_N_SIZE_SHIFT 0

/* COMMAND: write */
#define M2XFP_COMMAND_OFFSET 0x2cu
/* Where activations come from; a write starts a command of this, M, K and N, or is answered with SLVERR if `free` is 0 */
#define M2XFP_COMMAND_SOURCE_MASK 0x00000003u
#define M2XFP_COMMAND_SOURCE_SHIFT 0
#define M2XFP_COMMAND_SOURCE_RECORDS 0u
#define M2XFP_COMMAND_SOURCE_VALUES 1u
#define M2XFP_COMMAND_SOURCE_KEPT 2u
/* What happens to the result */
#define M2XFP_COMMAND_RESULT_MASK 0x00000030u
#define M2XFP_COMMAND_RESULT_SHIFT 4
#define M2XFP_COMMAND_RESULT_VALUES 0u
#define M2XFP_COMMAND_RESULT_RECORDS 1u
#define M2XFP_COMMAND_RESULT_KEEP 2u

/* STATUS: read */
#define M2XFP_STATUS_OFFSET 0x30u
/* Commands that can be written before a result is popped */
#define M2XFP_STATUS_FREE_MASK 0x000000ffu
#define M2XFP_STATUS_FREE_SHIFT 0
/* Commands that were written and have not ended */
#define M2XFP_STATUS_RUNNING_MASK 0x0000ff00u
#define M2XFP_STATUS_RUNNING_SHIFT 8
/* Commands that have ended and whose result was not popped */
#define M2XFP_STATUS_WAITING_MASK 0x00ff0000u
#define M2XFP_STATUS_WAITING_SHIFT 16
/* Whether the machine halts: it runs no command */
#define M2XFP_STATUS_HALTING_MASK 0x01000000u
#define M2XFP_STATUS_HALTING_SHIFT 24
/* Whether it has come to rest and can resume */
#define M2XFP_STATUS_HALTED_MASK 0x02000000u
#define M2XFP_STATUS_HALTED_SHIFT 25

/* RESULT: read */
#define M2XFP_RESULT_OFFSET 0x34u
/* How the oldest of those that wait ended, 0 if none does */
#define M2XFP_RESULT_CODE_MASK 0x0000000fu
#define M2XFP_RESULT_CODE_SHIFT 0
#define M2XFP_RESULT_CODE_DONE 0u
#define M2XFP_RESULT_CODE_BAD_SIZE 1u
#define M2XFP_RESULT_CODE_BAD_SOURCE 2u
#define M2XFP_RESULT_CODE_BAD_RESULT 3u
#define M2XFP_RESULT_CODE_NOT_KEPT 4u
#define M2XFP_RESULT_CODE_TOO_LARGE 5u
#define M2XFP_RESULT_CODE_ABORTED 6u
#define M2XFP_RESULT_CODE_TIMEOUT 7u
#define M2XFP_RESULT_CODE_MISFRAMED 14u
/* Whether one waits */
#define M2XFP_RESULT_VALID_MASK 0x80000000u
#define M2XFP_RESULT_VALID_SHIFT 31

/* POP: write */
#define M2XFP_POP_OFFSET 0x38u
/* 1 makes way for the next result; without effect if none waits */
#define M2XFP_POP_POP_MASK 0x00000001u
#define M2XFP_POP_POP_SHIFT 0

/* CYCLES_LOW: read */
#define M2XFP_CYCLES_LOW_OFFSET 0x40u
/* Cycles since reset in which a command was running, lower half */
#define M2XFP_CYCLES_LOW_CYCLES_MASK 0xffffffffu
#define M2XFP_CYCLES_LOW_CYCLES_SHIFT 0

/* CYCLES_HIGH: read */
#define M2XFP_CYCLES_HIGH_OFFSET 0x44u
/* Upper half, as it was when the lower one was last read */
#define M2XFP_CYCLES_HIGH_CYCLES_MASK 0xffffffffu
#define M2XFP_CYCLES_HIGH_CYCLES_SHIFT 0

/* INTERRUPT_PENDING: read, write */
#define M2XFP_INTERRUPT_PENDING_OFFSET 0x48u
/* A result waits; 0 once all are popped */
#define M2XFP_INTERRUPT_PENDING_DONE_MASK 0x00000001u
#define M2XFP_INTERRUPT_PENDING_DONE_SHIFT 0
/* A command can be written */
#define M2XFP_INTERRUPT_PENDING_FREE_MASK 0x00000002u
#define M2XFP_INTERRUPT_PENDING_FREE_SHIFT 1
/* A command ended with a code other than DONE; a written 1 clears it */
#define M2XFP_INTERRUPT_PENDING_FAILED_MASK 0x00000004u
#define M2XFP_INTERRUPT_PENDING_FAILED_SHIFT 2
/* The last transfer of a command's operands was not marked, or another one was; a written 1 clears it; 0 where `CONFIG.framed` is 0 */
#define M2XFP_INTERRUPT_PENDING_MISFRAMED_MASK 0x00000008u
#define M2XFP_INTERRUPT_PENDING_MISFRAMED_SHIFT 3

/* INTERRUPT_MASK: read, write */
#define M2XFP_INTERRUPT_MASK_OFFSET 0x4cu
/* 1 lets `done` raise the interrupt line */
#define M2XFP_INTERRUPT_MASK_DONE_MASK 0x00000001u
#define M2XFP_INTERRUPT_MASK_DONE_SHIFT 0
/* 1 lets `free` raise the interrupt line */
#define M2XFP_INTERRUPT_MASK_FREE_MASK 0x00000002u
#define M2XFP_INTERRUPT_MASK_FREE_SHIFT 1
/* 1 lets `failed` raise the interrupt line */
#define M2XFP_INTERRUPT_MASK_FAILED_MASK 0x00000004u
#define M2XFP_INTERRUPT_MASK_FAILED_SHIFT 2
/* 1 lets `misframed` raise the interrupt line */
#define M2XFP_INTERRUPT_MASK_MISFRAMED_MASK 0x00000008u
#define M2XFP_INTERRUPT_MASK_MISFRAMED_SHIFT 3

/* HALT: write */
#define M2XFP_HALT_OFFSET 0x50u
/* 1 halts the machine */
#define M2XFP_HALT_HALT_MASK 0x00000001u
#define M2XFP_HALT_HALT_SHIFT 0
/* 1 ends the halt if `halted` is 1, and is answered with SLVERR while only `halting` is; without effect beside a 1 in `halt` */
#define M2XFP_HALT_RESUME_MASK 0x00000002u
#define M2XFP_HALT_RESUME_SHIFT 1

/* HALT_ON: read, write */
#define M2XFP_HALT_ON_OFFSET 0x54u
/* 1 halts the machine when a command ends with a code other than DONE */
#define M2XFP_HALT_ON_FAILED_MASK 0x00000001u
#define M2XFP_HALT_ON_FAILED_SHIFT 0
/* 1 halts it at a wrong mark of an operand; without effect where `CONFIG.framed` is 0 */
#define M2XFP_HALT_ON_MISFRAMED_MASK 0x00000002u
#define M2XFP_HALT_ON_MISFRAMED_SHIFT 1

/* WATCHDOG: read, write */
#define M2XFP_WATCHDOG_OFFSET 0x58u
/* Cycles in which a command runs and nothing moves after which the machine halts; 0 for never */
#define M2XFP_WATCHDOG_CYCLES_MASK 0xffffffffu
#define M2XFP_WATCHDOG_CYCLES_SHIFT 0

/* Asks for a product. Returns 0, or -1 if a size is too large or no command is free. */
static inline int m2xfp_start(volatile uint32_t *base, uint32_t m, uint32_t k, uint32_t n,
                              uint32_t source, uint32_t result)
{
    if (m > M2XFP_M_SIZE_MASK || k > M2XFP_K_SIZE_MASK || n > M2XFP_N_SIZE_MASK)
        return -1;
    if (!(base[M2XFP_STATUS_OFFSET / 4] & M2XFP_STATUS_FREE_MASK))
        return -1;
    base[M2XFP_M_OFFSET / 4] = m;
    base[M2XFP_K_OFFSET / 4] = k;
    base[M2XFP_N_OFFSET / 4] = n;
    base[M2XFP_COMMAND_OFFSET / 4] = source << M2XFP_COMMAND_SOURCE_SHIFT
                                     | result << M2XFP_COMMAND_RESULT_SHIFT;
    return 0;
}

/* Takes the result of the oldest command. Returns its code, or -1 if it has not ended. */
static inline int m2xfp_finish(volatile uint32_t *base)
{
    uint32_t result = base[M2XFP_RESULT_OFFSET / 4];

    if (!(result & M2XFP_RESULT_VALID_MASK))
        return -1;
    base[M2XFP_POP_OFFSET / 4] = M2XFP_POP_POP_MASK;
    return (int)((result & M2XFP_RESULT_CODE_MASK) >> M2XFP_RESULT_CODE_SHIFT);
}

/* Halts the machine: commands that run end with ABORTED, and operands are thrown away. */
static inline void m2xfp_stop(volatile uint32_t *base)
{
    base[M2XFP_HALT_OFFSET / 4] = M2XFP_HALT_HALT_MASK;
}

/*
 * Lets a machine go on that has halted. Returns 0, or -1 while it has not yet come to rest. Before
 * this nothing of old commands may be left in the senders of operands.
 */
static inline int m2xfp_go_on(volatile uint32_t *base)
{
    uint32_t status = base[M2XFP_STATUS_OFFSET / 4];

    if (!(status & M2XFP_STATUS_HALTED_MASK))
        return status & M2XFP_STATUS_HALTING_MASK ? -1 : 0;
    base[M2XFP_HALT_OFFSET / 4] = M2XFP_HALT_RESUME_MASK;
    return 0;
}

/* Events that are pending, as M2XFP_INTERRUPT_PENDING_..._MASK; also those that are masked. */
static inline uint32_t m2xfp_pending(const volatile uint32_t *base)
{
    return base[M2XFP_INTERRUPT_PENDING_OFFSET / 4];
}

/* Lets these events raise the interrupt line, and no others. */
static inline void m2xfp_unmask(volatile uint32_t *base, uint32_t events)
{
    base[M2XFP_INTERRUPT_MASK_OFFSET / 4] = events;
}

/* Clears those of these events that stay pending until they are cleared. */
static inline void m2xfp_clear(volatile uint32_t *base, uint32_t events)
{
    base[M2XFP_INTERRUPT_PENDING_OFFSET / 4] = events;
}

/* Cycles in which the machine had commands, since its reset. */
static inline uint64_t m2xfp_cycles(const volatile uint32_t *base)
{
    uint64_t low = base[M2XFP_CYCLES_LOW_OFFSET / 4];

    return (uint64_t)base[M2XFP_CYCLES_HIGH_OFFSET / 4] << 32 | low;
}

#endif /* M2XFP_REGISTERS_H */
