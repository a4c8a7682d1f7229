/*
 * The bridge's transport: a virtio-serial port that only the agent can open. Nothing here blocks except where its name
 * says so, and both buffers are bounded: what does not fit out waits where it comes from.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#define PORTS_PATH "/sys/class/virtio-ports"
#define PORT_NAME "mayfly.bridge"

enum {
    FRAME_MAX = FRAME_HEADER_BYTES + FRAME_PAYLOAD_MAX,
    /* Room that DATA may not use: a PROOF and a FAULT always fit. */
    CONTROL_ROOM = 2 * FRAME_MAX,
    OUT_BYTES = CONTROL_ROOM + 2 * FRAME_MAX,
    IN_BYTES = 2 * FRAME_MAX,
};

static int port = -1;
static struct frame_counter incoming = {FROM_HOST, 0, 0};
static struct frame_counter outgoing = {FROM_GUEST, 0, 0};

static uint8_t in[IN_BYTES];
static size_t in_start, in_end;
/* Bytes of the frame that was handed out last; they go with the next call. */
static size_t in_taken;
static struct frame in_frame;
static bool in_header_read;

static uint8_t out[OUT_BYTES];
static size_t out_start, out_end;

/* ---- open -------------------------------------------------------------------------------------------------------- */

static bool open_named_port(void) {
    DIR *ports = opendir(PORTS_PATH);
    if (ports == NULL) return false;
    for (struct dirent *entry; port < 0 && (entry = readdir(ports)) != NULL;) {
        char path[320], name[64];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, PORTS_PATH "/%s/name", entry->d_name);
        if (read_text(path, name, sizeof name) < 0) continue;
        name[strcspn(name, "\n")] = '\0';
        if (strcmp(name, PORT_NAME) != 0) continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    closedir(ports);
    return port >= 0;
}

/* The port's name arrives from the host some time after the driver was loaded. */
void port_open(void) {
    for (unsigned i = 0; i < DEVICE_SECONDS_MAX * 200; i++) {
        if (open_named_port()) return;
        usleep(5000);
    }
    fault(E_TEMPLATE_BUILD, "there is no port " PORT_NAME);
}

int port_descriptor(void) {
    return port;
}

/* ---- move -------------------------------------------------------------------------------------------------------- */

short port_events(void) {
    short events = 0;
    if (in_end - in_start < sizeof in) events |= POLLIN;
    if (out_start < out_end) events |= POLLOUT;
    return events;
}

static void drain_out(void) {
    if (out_start == out_end) return;
    ssize_t written = write(port, out + out_start, out_end - out_start);
    if (written > 0) out_start += (size_t)written;
    if (out_start == out_end) out_start = out_end = 0;
}

static void fill_in(void) {
    if (in_start > 0 && sizeof in - in_end < FRAME_MAX) {
        memmove(in, in + in_start, in_end - in_start);
        in_end -= in_start;
        in_start = 0;
    }
    if (in_end == sizeof in) return;
    ssize_t got = read(port, in + in_end, sizeof in - in_end);
    if (got > 0) in_end += (size_t)got;
}

void port_move(short events) {
    if ((events & POLLOUT) != 0) drain_out();
    if ((events & POLLIN) != 0) fill_in();
    /* The host has hung up: it is about to end this machine. Do not spin until it does. */
    if ((events & POLLHUP) != 0) usleep(10000);
}

static void wait_for_port(short events, int millis) {
    struct pollfd wanted = {.fd = port, .events = events};
    if (poll(&wanted, 1, millis) > 0) port_move(wanted.revents);
}

bool port_take(struct frame *frame, const uint8_t **payload) {
    in_start += in_taken;
    in_taken = 0;
    if (!in_header_read) {
        if (in_end - in_start < FRAME_HEADER_BYTES) return false;
        violation wrong = frame_read_header(&incoming, in + in_start, &in_frame);
        if (wrong != NULL) fault(E_CLONE_FAILED, "frame: %s", wrong);
        in_header_read = true;
    }
    if (in_end - in_start < FRAME_HEADER_BYTES + in_frame.length) return false;
    in_header_read = false;
    in_taken = FRAME_HEADER_BYTES + in_frame.length;
    *frame = in_frame;
    *payload = in + in_start + FRAME_HEADER_BYTES;
    if (frame->stream != 0) return true;
    violation wrong = message_check(frame->type, *payload, frame->length);
    if (wrong != NULL) fault(E_CLONE_FAILED, "message 0x%02x: %s", frame->type, wrong);
    return true;
}

void port_await(struct frame *frame, const uint8_t **payload) {
    while (!port_take(frame, payload)) wait_for_port(port_events(), -1);
}

void port_forget(void) {
    explicit_bzero(in + in_start, in_taken);
}

void port_adopt(void) {
    outgoing.nonce = incoming.nonce;
    outgoing.sequence = 0;
}

/* ---- send -------------------------------------------------------------------------------------------------------- */

bool port_has_room(uint32_t length) {
    return out_end - out_start + FRAME_HEADER_BYTES + length <= sizeof out - CONTROL_ROOM;
}

void port_send(uint8_t type, uint32_t stream, const void *payload, uint32_t length) {
    size_t size = FRAME_HEADER_BYTES + length;
    while (out_end - out_start + size > sizeof out) wait_for_port(POLLOUT, -1);
    if (out_end + size > sizeof out) {
        memmove(out, out + out_start, out_end - out_start);
        out_end -= out_start;
        out_start = 0;
    }
    frame_write_header(&outgoing, out + out_end, type, stream, length);
    if (length > 0) memcpy(out + out_end + FRAME_HEADER_BYTES, payload, length);
    out_end += size;
    drain_out();
}

void port_send_message(uint8_t type, const struct writer *writer) {
    if (writer->overflow) fault(E_CLONE_FAILED, "message 0x%02x is too large", type);
    port_send(type, 0, writer->bytes, writer->length);
}

void port_flush(unsigned seconds) {
    uint64_t end = monotonic_millis() + seconds * 1000u;
    while (out_start < out_end && monotonic_millis() < end) wait_for_port(POLLOUT, 50);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

_Noreturn void fault(const char *code, const char *format, ...) {
    static struct writer writer;
    static bool faulty;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *at = text; *at != '\0'; at++) {
        if (*at < ' ' || *at > '~') *at = '?'; /* a character that was cut in two would be a violation of ours */
    }
    dprintf(2, "mayfly-agent: fault %s: %s\n", code, text);
    if (!faulty && port >= 0) {
        faulty = true;
        write_message(&writer);
        write_text_field(&writer, 1, code);
        write_text_field(&writer, 2, text);
        if (out_end - out_start + FRAME_HEADER_BYTES + writer.length <= sizeof out) {
            port_send(FAULT, 0, writer.bytes, writer.length);
            port_flush(FAULT_SECONDS_MAX);
        }
    }
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
