/*
 * The bridge's frames (docs/FORMATS.md): pure, no I/O, so that the golden files of the host test this very code.
 *
 * The host is trusted less than one would think: whatever it sends, the agent answers with a violation by name, in the
 * words of src/bridge/frame.ts, and never reads beyond what it was given.
 */
#ifndef MAYFLY_FRAME_H
#define MAYFLY_FRAME_H

#include <stdint.h>

enum {
    FRAME_HEADER_BYTES = 24,
    FRAME_PAYLOAD_MAX = 64 * 1024,
    FIELD_HEADER_BYTES = 6,
    FIELD_BYTES_MAX = 32 * 1024,
    FIELDS_MAX = 512,
    STREAM_WINDOW_BYTES = 256 * 1024,
    EGRESS_WINDOW_BYTES = 128 * 1024,
    OPEN_BYTES = 20,
    DNS_BYTES_MIN = 12, /* the header of every DNS message */
    DNS_BYTES_MAX = 4096,
};

enum frame_type {
    HELLO = 0x01, READY = 0x02, ADOPTED = 0x03, PROOF = 0x04, EXIT = 0x05, FAULT = 0x06,
    DATA = 0x10, END = 0x11, CREDIT = 0x12,
    OPEN = 0x13, RESET = 0x14, ACCEPT = 0x15, QUERY = 0x16, ANSWER = 0x17,
    PREPARE = 0x21, ADOPT = 0x22, CONFIGURE = 0x23, FILE_ENTRY = 0x24, START = 0x25,
    STOP = 0x26,
};

enum stream { STREAM_STDOUT = 1, STREAM_STDERR = 2, STREAM_OUTPUT = 3, STREAM_STDIN = 4, STREAM_CODE = 5 };

/* Numbers of connections and of DNS queries: chosen by who opens them, each one higher than all before. */
enum { EGRESS_STREAM_MIN = 16 };
static const uint32_t EGRESS_STREAM_MAX = 0x7fffffff;
static const uint32_t HOST_STREAM_MIN = 0x80000000, HOST_STREAM_MAX = 0x8000ffff;

enum side { FROM_GUEST, FROM_HOST };

struct frame {
    uint8_t type;
    uint32_t length;
    uint32_t sequence;
    uint32_t stream;
    uint64_t nonce;
};

/* One direction of the bridge: what the next frame has to carry. */
struct frame_counter {
    enum side from;
    uint64_t nonce;
    uint32_t sequence;
};

/* NULL when all is well, else the violation's name. */
typedef const char *violation;

/* Checks a header and counts it. ADOPT under the nonce 0 names the clone's nonce and starts counting anew. */
violation frame_read_header(struct frame_counter *counter, const uint8_t header[FRAME_HEADER_BYTES],
                            struct frame *frame);

/* Header of the next frame of this direction. */
void frame_write_header(struct frame_counter *counter, uint8_t header[FRAME_HEADER_BYTES], uint8_t type,
                        uint32_t stream, uint32_t length);

struct end {
    uint64_t total_bytes;
    uint8_t truncated;
};

/* Payloads of END (9 bytes) and CREDIT (4 bytes); their lengths were checked with the header. */
violation end_read(const uint8_t payload[9], struct end *end);
void end_write(uint8_t payload[9], struct end end);

/* Why a connection is not, or not any more (RESET). */
enum reset { RESET_GONE = 0, RESET_DENIED = 1, RESET_UNREACHABLE = 2, RESET_TIMEOUT = 3, RESET_LIMIT = 4 };

/* Payload of OPEN: `u8 family` (4), `u8` 0, `u16 port`, address in network order, 0 up to 16 bytes. */
void open_write(uint8_t payload[OPEN_BYTES], uint32_t address, uint16_t port);
violation open_check(const uint8_t payload[OPEN_BYTES]);
violation reset_check(const uint8_t payload[1]);

uint16_t read_u16(const uint8_t *bytes);
uint32_t read_u32(const uint8_t *bytes);
uint64_t read_u64(const uint8_t *bytes);
void write_u16(uint8_t *bytes, uint16_t value);
void write_u32(uint8_t *bytes, uint32_t value);
void write_u64(uint8_t *bytes, uint64_t value);

#endif
