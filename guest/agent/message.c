#include "message.h"

#include <string.h>

/* ---- the table --------------------------------------------------------------------------------------------------- */

enum kind { KIND_END = 0, KIND_U64, KIND_NANOS, KIND_TEXT, KIND_BYTES };

/* Fields are numbered from 1 without gaps, so a field's place in its message is its tag. */
struct shape {
    enum kind kind;
    bool repeat;
    uint64_t max;    /* of a u64; 0: as much as the host's numbers hold exactly */
    uint32_t length; /* of bytes; 0: any */
};

enum { SHAPES_MAX = 16 };

static const uint64_t SAFE_INTEGER_MAX = 0x1fffffffffffff;
static const uint64_t ID_MAX = 0xfffffffe; /* (uid_t) -1 means "unchanged" to the kernel */

#define U64 {KIND_U64, false, 0, 0}
#define U64_MAX(most) {KIND_U64, false, most, 0}
#define NANOS {KIND_NANOS, false, 0, 0}
#define TEXT {KIND_TEXT, false, 0, 0}
#define TEXTS {KIND_TEXT, true, 0, 0}
#define BYTES(exactly) {KIND_BYTES, false, 0, exactly}

struct message_shape {
    uint8_t type;
    struct shape fields[SHAPES_MAX];
};

static const struct message_shape messages[] = {
    {HELLO, {U64, TEXT, TEXT, U64, TEXT}},
    {READY, {U64_MAX(1)}},
    {ADOPTED, {U64_MAX(1), NANOS, TEXT, TEXT, TEXT}},
    {PROOF, {TEXTS}},
    {EXIT, {U64_MAX(255), U64_MAX(64), U64, U64, U64, U64}},
    {FAULT, {TEXT, TEXT}},
    {PREPARE, {TEXTS, TEXTS, U64_MAX(ID_MAX), U64_MAX(ID_MAX), U64, BYTES(0)}},
    {ADOPT, {BYTES(64), NANOS, TEXT, TEXT, TEXT}},
    {CONFIGURE, {U64, U64, U64, U64, U64, U64, U64, U64, U64, TEXTS, TEXTS, U64_MAX(ID_MAX), U64_MAX(ID_MAX), BYTES(0),
                 BYTES(0)}},
    {FILE_ENTRY, {TEXT, U64_MAX(2), U64_MAX(07777), U64, TEXT}},
    {START, {{KIND_END, false, 0, 0}}},
    {STOP, {{KIND_END, false, 0, 0}}},
};

static const struct shape *shapes_of(uint8_t type) {
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        if (messages[i].type == type) return messages[i].fields;
    }
    return NULL;
}

/* ---- check ------------------------------------------------------------------------------------------------------- */

bool next_field(struct fields *fields, struct field *field, violation *wrong) {
    size_t left = (size_t)(fields->end - fields->at);
    *wrong = NULL;
    if (left == 0) return false;
    if (left < FIELD_HEADER_BYTES) {
        *wrong = "field-truncated";
        return false;
    }
    field->tag = read_u16(fields->at);
    field->length = read_u32(fields->at + 2);
    field->value = fields->at + FIELD_HEADER_BYTES;
    if (field->length > left - FIELD_HEADER_BYTES) {
        *wrong = "field-truncated";
        return false;
    }
    fields->at = field->value + field->length;
    return true;
}

/* Strict: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
static bool is_utf8(const uint8_t *text, size_t length) {
    for (size_t i = 0; i < length;) {
        uint8_t first = text[i++];
        if (first < 0x80) continue;
        size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
        if (first < 0xc2 || first > 0xf4 || length - i < more) return false;
        uint8_t second = text[i];
        if (first == 0xe0 && second < 0xa0) return false;
        if (first == 0xed && second > 0x9f) return false;
        if (first == 0xf0 && second < 0x90) return false;
        if (first == 0xf4 && second > 0x8f) return false;
        for (; more > 0; more--) {
            if ((text[i++] & 0xc0) != 0x80) return false;
        }
    }
    return true;
}

static violation check_value(const struct shape *shape, const struct field *field) {
    switch (shape->kind) {
    case KIND_U64:
        if (field->length != 8) return "field-width";
        return read_u64(field->value) > (shape->max == 0 ? SAFE_INTEGER_MAX : shape->max) ? "field-value" : NULL;
    case KIND_NANOS:
        return field->length != 8 ? "field-width" : NULL;
    case KIND_TEXT:
        if (field->length > 0 && memchr(field->value, 0, field->length) != NULL) return "field-nul";
        return is_utf8(field->value, field->length) ? NULL : "field-utf8";
    case KIND_BYTES:
        return shape->length != 0 && field->length != shape->length ? "field-width" : NULL;
    default:
        return "field-unknown";
    }
}

violation message_check(uint8_t type, const uint8_t *payload, uint32_t length) {
    const struct shape *shapes = shapes_of(type);
    if (shapes == NULL) return "type";
    bool seen[SHAPES_MAX] = {false};
    uint32_t count = 0;
    struct fields fields = {payload, payload + length};
    while (fields.at < fields.end) {
        if (++count > FIELDS_MAX) return "field-count";
        /* The header is judged before the value's length, so that both sides name the same violation. */
        if (fields.end - fields.at < FIELD_HEADER_BYTES) return "field-truncated";
        uint16_t tag = read_u16(fields.at);
        if (tag == 0 || tag > SHAPES_MAX || shapes[tag - 1].kind == KIND_END) return "field-unknown";
        const struct shape *shape = &shapes[tag - 1];
        if (seen[tag - 1] && !shape->repeat) return "field-duplicate";
        if (read_u32(fields.at + 2) > FIELD_BYTES_MAX) return "field-length";
        struct field field;
        violation wrong;
        if (!next_field(&fields, &field, &wrong)) return wrong;
        wrong = check_value(shape, &field);
        if (wrong != NULL) return wrong;
        seen[tag - 1] = true;
    }
    for (size_t i = 0; i < SHAPES_MAX && shapes[i].kind != KIND_END; i++) {
        if (!seen[i] && !shapes[i].repeat) return "field-missing";
    }
    return NULL;
}

/* ---- read -------------------------------------------------------------------------------------------------------- */

struct field message_field(struct message message, uint16_t tag) {
    struct fields fields = {message.payload, message.payload + message.length};
    struct field field;
    violation wrong;
    while (next_field(&fields, &field, &wrong)) {
        if (field.tag == tag) return field;
    }
    return (struct field){tag, 0, message.payload};
}

uint64_t message_u64(struct message message, uint16_t tag) {
    struct field field = message_field(message, tag);
    return field.length == 8 ? read_u64(field.value) : 0;
}

bool message_text(struct message message, uint16_t tag, char *text, size_t room) {
    struct field field = message_field(message, tag);
    if (field.length >= room) return false;
    memcpy(text, field.value, field.length);
    text[field.length] = '\0';
    return true;
}

size_t message_list(struct message message, uint16_t tag, struct texts *texts, char *list[FIELDS_MAX + 1]) {
    struct fields fields = {message.payload, message.payload + message.length};
    struct field field;
    violation wrong;
    size_t count = 0;
    while (count < FIELDS_MAX && next_field(&fields, &field, &wrong)) {
        if (field.tag != tag || field.length >= sizeof texts->bytes - texts->used) continue;
        char *text = texts->bytes + texts->used;
        memcpy(text, field.value, field.length);
        text[field.length] = '\0';
        texts->used += field.length + 1;
        list[count++] = text;
    }
    list[count] = NULL;
    return count;
}

/* ---- write ------------------------------------------------------------------------------------------------------- */

void write_message(struct writer *writer) {
    writer->length = 0;
    writer->fields = 0;
    writer->overflow = false;
}

static void write_field(struct writer *writer, uint16_t tag, const void *value, size_t length) {
    if (length > FIELD_BYTES_MAX || writer->fields == FIELDS_MAX ||
        sizeof writer->bytes - writer->length < FIELD_HEADER_BYTES + length) {
        writer->overflow = true;
        return;
    }
    uint8_t *at = writer->bytes + writer->length;
    write_u16(at, tag);
    write_u32(at + 2, (uint32_t)length);
    memcpy(at + FIELD_HEADER_BYTES, value, length);
    writer->length += (uint32_t)(FIELD_HEADER_BYTES + length);
    writer->fields++;
}

void write_u64_field(struct writer *writer, uint16_t tag, uint64_t value) {
    uint8_t bytes[8];
    write_u64(bytes, value);
    write_field(writer, tag, bytes, sizeof bytes);
}

void write_text_field(struct writer *writer, uint16_t tag, const char *text) {
    write_field(writer, tag, text, strlen(text));
}
