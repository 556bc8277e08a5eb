/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Plans, packs and unpacks what a file says, and writes what comes out. Every array is allocated at
 * its exact size, so that a sanitizer sees any access beyond it. Numbers are little-endian.
 */
#include <stdio.h>
#include <stdlib.h>

#include "m2xfp.h"

static FILE *input, *output;

static void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);

    if (!memory)
        exit(2);
    return memory;
}

static void *given(size_t size)
{
    void *memory = allocate(size);

    if (fread(memory, 1, size, input) != size)
        exit(3);
    return memory;
}

static void give(const void *memory, size_t size)
{
    if (fwrite(memory, 1, size, output) != size)
        exit(4);
}

/* Packs a stream through a buffer of a few beats and writes it, with the marks of the last beat. */
enum kind { WEIGHTS, ACTIVATIONS, VALUES };

static void pack(enum kind kind, const struct m2xfp_machine *machine,
                 const struct m2xfp_plan *plan, const struct m2xfp_planes *planes, const float *x,
                 size_t bytes, size_t chunk)
{
    struct m2xfp_walk walk, marks;
    struct m2xfp_beat beat;
    uint64_t total = 0, lasts = 0;
    size_t count;
    /* A part of a beat more does not count. */
    size_t size = bytes * chunk + bytes - 1;
    uint8_t *buffer = allocate(size);

    if (kind == WEIGHTS)
        m2xfp_walk_weights(&walk, plan);
    else
        m2xfp_walk_activations(&walk, plan);
    marks = walk;
    do {
        count = kind == WEIGHTS ? m2xfp_pack_weights(&walk, planes, buffer, size)
                : kind == ACTIVATIONS ? m2xfp_pack_activations(&walk, planes, buffer, size)
                : m2xfp_pack_values(&walk, machine, x, plan->k, buffer, size);
        give(buffer, bytes * count);
        total += count;
    } while (count);
    if (total != (kind == WEIGHTS ? plan->weight_beats : plan->activation_beats))
        exit(5);
    for (beat.last = 0; m2xfp_walk_next(&marks, &beat); lasts += beat.last)
        total--;
    if (total || lasts != 1 || !beat.last)
        exit(6);
    free(buffer);
}

static void job(const uint32_t *head)
{
    struct m2xfp_machine machine = {0};
    struct m2xfp_command command;
    struct m2xfp_kept kept;
    struct m2xfp_plan plan;
    struct m2xfp_planes w, a;
    struct m2xfp_result_planes records;
    struct m2xfp_walk walk;
    uint32_t status, chunk = head[13];
    size_t groups, bytes, done, count, record, elements, metadata;
    float *x, *y;
    uint8_t *beats;

    machine.columns = head[0];
    machine.weight_width = head[1];
    machine.activations = head[2];
    machine.rows = head[3];
    machine.input = head[4];
    machine.quantizes = head[5];
    machine.encoding = head[15];
    record = m2xfp_record_bytes(&machine);
    elements = m2xfp_group(&machine) / 2;
    metadata = record - elements - 1;
    command.m = head[6];
    command.k = head[7];
    command.n = head[8];
    command.source = head[9];
    command.result = head[10];
    kept.m = head[11];
    kept.n = head[12];
    status = (uint32_t)m2xfp_check(&machine, &command, kept.m ? &kept : NULL);
    give(&status, 4);
    if (!head[14])
        return;

    command.source = M2XFP_FROM_RECORDS;
    command.result = M2XFP_TO_VALUES;
    m2xfp_make_plan(&plan, &machine, &command);
    groups = plan.groups;
    w.elements = given(command.n * groups * elements);
    w.metadata = given(command.n * groups * metadata);
    w.scales = given(command.n * groups);
    a.elements = given(command.m * groups * elements);
    a.metadata = given(command.m * groups * metadata);
    a.scales = given(command.m * groups);
    x = given((size_t)command.m * command.k * 4);
    pack(WEIGHTS, &machine, &plan, &w, NULL, m2xfp_weight_bytes(&machine), chunk);
    pack(ACTIVATIONS, &machine, &plan, &a, NULL, record, chunk);
    if (machine.input)
        pack(VALUES, &machine, &plan, NULL, x, m2xfp_value_bytes(&machine), chunk);

    bytes = m2xfp_result_bytes(&machine);
    y = allocate((size_t)command.m * command.n * 4);
    m2xfp_walk_results(&walk, &plan);
    for (done = 0; done < plan.result_beats; done += count) {
        count = plan.result_beats - done < chunk ? (size_t)(plan.result_beats - done) : chunk;
        beats = given(bytes * count);
        if (m2xfp_unpack_values(&walk, beats, bytes * count, y, command.n) != count)
            exit(7);
        free(beats);
    }
    give(y, (size_t)command.m * command.n * 4);
    if (machine.quantizes) {
        records.elements = allocate((size_t)plan.result_beats * elements);
        records.metadata = allocate((size_t)plan.result_beats * metadata);
        records.scales = allocate((size_t)plan.result_beats);
        beats = given((size_t)plan.result_beats * record);
        m2xfp_walk_results(&walk, &plan);
        if (m2xfp_unpack_records(&walk, beats, (size_t)plan.result_beats * record, &records)
            != plan.result_beats)
            exit(8);
        give(records.elements, (size_t)plan.result_beats * elements);
        give(records.metadata, (size_t)plan.result_beats * metadata);
        give(records.scales, (size_t)plan.result_beats);
        free(beats);
        free(records.elements);
        free(records.metadata);
        free(records.scales);
    }
    free((void *)w.elements);
    free((void *)w.metadata);
    free((void *)w.scales);
    free((void *)a.elements);
    free((void *)a.metadata);
    free((void *)a.scales);
    free(x);
    free(y);
}

int main(int argc, char **argv)
{
    uint32_t head[16];

    if (argc != 3 || !(input = fopen(argv[1], "rb")) || !(output = fopen(argv[2], "wb")))
        return 1;
    while (fread(head, 4, 16, input) == 16)
        job(head);
    fclose(input);
    return fclose(output) != 0;
}
