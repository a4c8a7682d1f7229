#include "frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static const uint16_t MAGIC = 0x594d; /* "MY" */
static const uint8_t VERSION = 1;

/* What a frame of a type may look like: who sends it, on which streams, with how many payload bytes. */
struct type_rule {
    uint8_t type;
    bool from_guest;
    bool from_host;
    bool on_stream;
    uint32_t length_min;
    uint32_t length_max;
};

static const struct type_rule type_rules[] = {
    {HELLO, true, false, false, 0, FRAME_PAYLOAD_MAX},
    {READY, true, false, false, 0, FRAME_PAYLOAD_MAX},
    {ADOPTED, true, false, false, 0, FRAME_PAYLOAD_MAX},
    {PROOF, true, false, false, 0, FRAME_PAYLOAD_MAX},
    {EXIT, true, false, false, 0, FRAME_PAYLOAD_MAX},
    {FAULT, true, false, false, 0, FRAME_PAYLOAD_MAX},
    {PREPARE, false, true, false, 0, FRAME_PAYLOAD_MAX},
    {ADOPT, false, true, false, 0, FRAME_PAYLOAD_MAX},
    {CONFIGURE, false, true, false, 0, FRAME_PAYLOAD_MAX},
    {FILE_ENTRY, false, true, false, 0, FRAME_PAYLOAD_MAX},
    {START, false, true, false, 0, FRAME_PAYLOAD_MAX},
    {STOP, false, true, false, 0, FRAME_PAYLOAD_MAX},
    {DATA, true, true, true, 1, FRAME_PAYLOAD_MAX},
    {END, true, true, true, 9, 9},
    {CREDIT, true, true, true, 4, 4},
    {OPEN, true, true, true, OPEN_BYTES, OPEN_BYTES},
    {RESET, true, true, true, 1, 1},
    {ACCEPT, true, true, true, 0, 0},
    {QUERY, true, false, true, DNS_BYTES_MIN, DNS_BYTES_MAX},
    {ANSWER, false, true, true, DNS_BYTES_MIN, DNS_BYTES_MAX},
};

static const struct type_rule *rule_for(uint8_t type, enum side from) {
    for (size_t i = 0; i < sizeof type_rules / sizeof *type_rules; i++) {
        const struct type_rule *rule = &type_rules[i];
        if (rule->type == type) return (from == FROM_GUEST ? rule->from_guest : rule->from_host) ? rule : NULL;
    }
    return NULL;
}

/* Who opens a connection numbers it in its own half; the other side accepts it there. */
static bool connection_allowed(uint8_t type, enum side owner, enum side from) {
    if (type == OPEN) return owner == from;
    if (type == ACCEPT) return owner != from;
    return owner == FROM_GUEST || (type != QUERY && type != ANSWER);
}

/* DATA and END come from a fixed stream's sender, CREDIT from its receiver; connections have two of each. */
static bool stream_allowed(const struct type_rule *rule, uint32_t stream, enum side from) {
    if (!rule->on_stream) return stream == 0;
    if (stream >= EGRESS_STREAM_MIN && stream <= EGRESS_STREAM_MAX) {
        return connection_allowed(rule->type, FROM_GUEST, from);
    }
    if (stream >= HOST_STREAM_MIN && stream <= HOST_STREAM_MAX) return connection_allowed(rule->type, FROM_HOST, from);
    if (rule->type >= OPEN) return false;
    if (stream < STREAM_STDOUT || stream > STREAM_CODE) return false;
    enum side sender = stream <= STREAM_OUTPUT ? FROM_GUEST : FROM_HOST;
    return (sender == from) == (rule->type != CREDIT);
}

violation frame_read_header(struct frame_counter *counter, const uint8_t header[FRAME_HEADER_BYTES],
                            struct frame *frame) {
    if (read_u16(header) != MAGIC) return "magic";
    if (header[2] != VERSION) return "version";
    frame->type = header[3];
    frame->length = read_u32(header + 4);
    frame->sequence = read_u32(header + 8);
    frame->stream = read_u32(header + 12);
    frame->nonce = read_u64(header + 16);

    const struct type_rule *rule = rule_for(frame->type, counter->from);
    if (rule == NULL) return "type";
    if (frame->length < rule->length_min || frame->length > rule->length_max) return "length";
    if (frame->type == ADOPT && counter->nonce == 0) {
        if (frame->nonce == 0) return "nonce";
        counter->nonce = frame->nonce;
        counter->sequence = 0;
    }
    if (frame->sequence != counter->sequence) return "sequence";
    if (!stream_allowed(rule, frame->stream, counter->from)) return "stream";
    if (frame->nonce != counter->nonce) return "nonce";
    counter->sequence++;
    return NULL;
}

void frame_write_header(struct frame_counter *counter, uint8_t header[FRAME_HEADER_BYTES], uint8_t type,
                        uint32_t stream, uint32_t length) {
    write_u16(header, MAGIC);
    header[2] = VERSION;
    header[3] = type;
    write_u32(header + 4, length);
    write_u32(header + 8, counter->sequence++);
    write_u32(header + 12, stream);
    write_u64(header + 16, counter->nonce);
}

violation end_read(const uint8_t payload[9], struct end *end) {
    end->total_bytes = read_u64(payload);
    end->truncated = payload[8];
    return end->truncated > 1 ? "end-flag" : NULL;
}

void end_write(uint8_t payload[9], struct end end) {
    write_u64(payload, end.total_bytes);
    payload[8] = end.truncated;
}

void open_write(uint8_t payload[OPEN_BYTES], uint32_t address, uint16_t port) {
    memset(payload, 0, OPEN_BYTES);
    payload[0] = 4;
    write_u16(payload + 2, port);
    memcpy(payload + 4, &address, sizeof address);
}

violation open_check(const uint8_t payload[OPEN_BYTES]) {
    if (payload[0] != 4 || payload[1] != 0 || read_u16(payload + 2) == 0) return "open";
    for (size_t i = 8; i < OPEN_BYTES; i++) {
        if (payload[i] != 0) return "open";
    }
    return NULL;
}

violation reset_check(const uint8_t payload[1]) {
    return payload[0] > RESET_LIMIT ? "reset" : NULL;
}

/* ---- little-endian integers -------------------------------------------------------------------------------------- */

uint16_t read_u16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

uint32_t read_u32(const uint8_t *bytes) {
    return read_u16(bytes) | (uint32_t)read_u16(bytes + 2) << 16;
}

uint64_t read_u64(const uint8_t *bytes) {
    return read_u32(bytes) | (uint64_t)read_u32(bytes + 4) << 32;
}

void write_u16(uint8_t *bytes, uint16_t value) {
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

void write_u32(uint8_t *bytes, uint32_t value) {
    write_u16(bytes, (uint16_t)value);
    write_u16(bytes + 2, (uint16_t)(value >> 16));
}

void write_u64(uint8_t *bytes, uint64_t value) {
    write_u32(bytes, (uint32_t)value);
    write_u32(bytes + 4, (uint32_t)(value >> 32));
}
