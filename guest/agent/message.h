/*
 * Control messages: the table of docs/FORMATS.md, a strict check against it, and readers that may rely on that check.
 * Pure, no I/O: the host's golden test runs this code. Names of violations are those of src/bridge/frame.ts.
 */
#ifndef MAYFLY_MESSAGE_H
#define MAYFLY_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

/* ---- read -------------------------------------------------------------------------------------------------------- */

struct field {
    uint16_t tag;
    uint32_t length;
    const uint8_t *value;
};

/* Place in a payload. */
struct fields {
    const uint8_t *at;
    const uint8_t *end;
};

/* The next field; false at the end. `*wrong` is set when the bytes end inside a field. */
bool next_field(struct fields *fields, struct field *field, violation *wrong);

/* First violation in the order of the bytes, missing fields last; NULL for a message that can be read. */
violation message_check(uint8_t type, const uint8_t *payload, uint32_t length);

/* A payload that message_check has passed. */
struct message {
    const uint8_t *payload;
    uint32_t length;
};

uint64_t message_u64(struct message message, uint16_t tag);

/* Value of a `bytes` or `str` field, which is not terminated. */
struct field message_field(struct message message, uint16_t tag);

/* Copies a `str` field, terminated; false when it does not fit. */
bool message_text(struct message message, uint16_t tag, char *text, size_t room);

/* Room for lists of strings: whatever fits into one message fits here. */
struct texts {
    char bytes[FRAME_PAYLOAD_MAX + FIELDS_MAX];
    size_t used;
};

/* Collects a repeated `str` field as a NULL-terminated list; returns its length. */
size_t message_list(struct message message, uint16_t tag, struct texts *texts, char *list[FIELDS_MAX + 1]);

/* ---- write ------------------------------------------------------------------------------------------------------- */

/* A message under construction. What does not fit is left out and sets `overflow`. */
struct writer {
    uint8_t bytes[FRAME_PAYLOAD_MAX];
    uint32_t length;
    uint32_t fields;
    bool overflow;
};

void write_message(struct writer *writer);
void write_u64_field(struct writer *writer, uint16_t tag, uint64_t value);
void write_text_field(struct writer *writer, uint16_t tag, const char *text);

#endif
