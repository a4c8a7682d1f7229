/*
 * The run itself: bytes between the workload's pipes and the bridge, each stream within the credit that its receiver
 * has given and the limit of the profile, until the workload has ended or has closed its result.
 *
 *   runtime     complete when fd 4 is at its end; then everything is killed: what else it might do nobody waits for
 *   executable  complete when its process has ended; what it left in the background is killed
 *   server      complete when the host says so (STOP): its answer has left through a connection
 *
 * One loop, one poll(), no stream can hold up another one.
 */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK_BYTES = 32 * 1024 };
/* A runtime that closed fd 4 without a result is about to exit, and how is worth knowing. */
enum { LAST_WORDS_MILLIS = 1000 };

/* One stream out of the workload. */
struct outflow {
    int pipe;
    uint32_t stream;
    uint64_t limit;
    uint64_t sent;
    uint32_t window;
    bool truncated;
};

/* The stream into it: whatever the window lets the host send has a place here. */
static struct {
    int pipe;
    uint8_t bytes[STREAM_WINDOW_BYTES];
    uint32_t start, filled;
    uint64_t received;
    uint32_t ungranted;
    bool ended;
} input;

static struct outflow flows[3];
static struct workload *current;
static bool exited, complete;
/* The host has ended it, and so it has not failed. */
static bool stopped;
static int status;

/* ---- end of the workload ----------------------------------------------------------------------------------------- */

static void reap(void) {
    if (exited || waitpid(current->pid, &status, WNOHANG) != current->pid) return;
    exited = true;
}

static bool await_exit(unsigned millis) {
    struct pollfd wanted = {.fd = current->pidfd, .events = POLLIN};
    if (!exited && poll(&wanted, 1, (int)millis) > 0) reap();
    return exited;
}

static void close_input(void) {
    if (input.pipe >= 0) close(input.pipe);
    input.pipe = -1;
}

/*
 * What the workload wrote so far is in its pipes and goes to the host. Nobody waits for what is killed here: the end of
 * a large process takes longer than many an event, and the whole machine is about to go.
 */
static void finish(void) {
    if (complete) return;
    complete = true;
    close_input();
    reap();
    kill_cgroup();
}

static void stop(void) {
    reap();
    stopped = !exited;
    finish();
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

static bool discards(const struct outflow *flow) {
    return flow->sent == flow->limit;
}

static bool wants_reading(const struct outflow *flow) {
    return flow->pipe >= 0 && (discards(flow) || (flow->window > 0 && port_has_room(CHUNK_BYTES)));
}

static void close_flow(struct outflow *flow) {
    close(flow->pipe);
    flow->pipe = -1;
    if (flow->stream != STREAM_OUTPUT) return;
    /* A runtime's result is complete, or it has ended; an executable may close its stdout and go on. */
    if (current->runtime && flow->sent == 0) await_exit(LAST_WORDS_MILLIS);
    if (current->runtime || flow->truncated) finish();
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void pump_out(struct outflow *flow) {
    static uint8_t chunk[CHUNK_BYTES];
    /* One byte more than allowed is read, to know that there is one. */
    uint64_t most = discards(flow) ? CHUNK_BYTES : least(least(CHUNK_BYTES, flow->window), flow->limit - flow->sent);
    ssize_t got = read(flow->pipe, chunk, (size_t)most);
    if (got < 0 && (errno == EINTR || (errno == EAGAIN && !complete))) return;
    if (got <= 0) {
        close_flow(flow);
        return;
    }
    if (discards(flow)) {
        flow->truncated = true;
        if (flow->stream == STREAM_OUTPUT) close_flow(flow);
        return;
    }
    port_send(DATA, flow->stream, chunk, (uint32_t)got);
    flow->sent += (uint64_t)got;
    flow->window -= (uint32_t)got;
}

static void take_credit(struct outflow *flow, uint32_t bytes) {
    if (bytes == 0 || bytes > STREAM_WINDOW_BYTES - flow->window) {
        fault(E_CLONE_FAILED, "stream %u: credit", flow->stream);
    }
    flow->window += bytes;
}

/* ---- in ---------------------------------------------------------------------------------------------------------- */

static void take_input(const uint8_t *bytes, uint32_t length) {
    if (input.ended) fault(E_CLONE_FAILED, "stdin: after-end");
    if (length > STREAM_WINDOW_BYTES - input.filled - input.ungranted) fault(E_CLONE_FAILED, "stdin: no-credit");
    input.received += length;
    if (input.pipe < 0) {
        /* Nobody reads it any more. */
        input.ungranted += length;
        return;
    }
    uint32_t at = (input.start + input.filled) % STREAM_WINDOW_BYTES;
    uint32_t first = (uint32_t)least(length, STREAM_WINDOW_BYTES - at);
    memcpy(input.bytes + at, bytes, first);
    memcpy(input.bytes, bytes + first, length - first);
    input.filled += length;
}

static void end_input(const uint8_t *payload) {
    struct end end;
    violation wrong = end_read(payload, &end);
    if (wrong != NULL) fault(E_CLONE_FAILED, "stdin: %s", wrong);
    if (input.ended) fault(E_CLONE_FAILED, "stdin: after-end");
    if (end.total_bytes != input.received) fault(E_CLONE_FAILED, "stdin: end-total");
    input.ended = true;
}

static void pump_in(void) {
    if (input.pipe >= 0 && input.filled > 0) {
        uint32_t most = (uint32_t)least(input.filled, STREAM_WINDOW_BYTES - input.start);
        ssize_t written = write(input.pipe, input.bytes + input.start, most);
        if (written > 0) {
            input.start = (input.start + (uint32_t)written) % STREAM_WINDOW_BYTES;
            input.filled -= (uint32_t)written;
            input.ungranted += (uint32_t)written;
        } else if (errno == EPIPE) {
            close_input();
        }
    }
    if (input.pipe < 0) {
        input.ungranted += input.filled;
        input.filled = 0;
    }
    if (input.ended && input.filled == 0) close_input();
    if (input.ended || input.ungranted < STREAM_WINDOW_BYTES / 2) return;
    uint8_t credit[4];
    write_u32(credit, input.ungranted);
    port_send(CREDIT, STREAM_STDIN, credit, sizeof credit);
    input.ungranted = 0;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static void take_frames(void) {
    struct frame frame;
    const uint8_t *payload;
    while (port_take(&frame, &payload)) {
        if (frame.type == DATA && frame.stream == STREAM_STDIN) take_input(payload, frame.length);
        else if (frame.type == END && frame.stream == STREAM_STDIN) end_input(payload);
        else if (frame.stream >= EGRESS_STREAM_MIN && egress_frame(&frame, payload)) continue;
        else if (frame.type == STOP) stop();
        else if (frame.type == CREDIT) take_credit(&flows[frame.stream - STREAM_STDOUT], read_u32(payload));
        else fault(E_CLONE_FAILED, "order: 0x%02x during the run", frame.type);
    }
}

static bool flowing(void) {
    return !complete || egress_drains() || flows[0].pipe >= 0 || flows[1].pipe >= 0 || flows[2].pipe >= 0;
}

/* One turn: waits for whatever can happen next and does it. */
static void turn(void) {
    enum { PORT, CHILD, INPUT, FLOWS, EGRESS = FLOWS + 3, COUNT_MAX = EGRESS + EGRESS_POLLS_MAX };
    int millis = -1;
    struct pollfd wanted[COUNT_MAX] = {
        [PORT] = {.fd = port_descriptor(), .events = port_events()},
        [CHILD] = {.fd = complete || exited ? -1 : current->pidfd, .events = POLLIN},
        [INPUT] = {.fd = input.filled > 0 ? input.pipe : -1, .events = POLLOUT},
    };
    bool drains = false; /* nothing more will come, but what is there can be read without waiting */
    for (int i = 0; i < 3; i++) {
        bool wants = wants_reading(&flows[i]);
        wanted[FLOWS + i].fd = wants ? flows[i].pipe : -1;
        wanted[FLOWS + i].events = POLLIN;
        drains = drains || (complete && wants);
    }
    size_t connections = egress_wait(wanted + EGRESS, &millis);
    if (poll(wanted, EGRESS + connections, drains ? 0 : millis) < 0) return;
    port_move(wanted[PORT].revents);
    egress_turn(wanted + EGRESS);
    take_frames();
    pump_in();
    for (int i = 0; i < 3; i++) {
        if ((wanted[FLOWS + i].revents != 0 || drains) && wants_reading(&flows[i])) pump_out(&flows[i]);
    }
    if (wanted[CHILD].revents != 0) finish();
}

static void send_ends(void) {
    for (int i = 0; i < 3; i++) {
        uint8_t payload[9];
        end_write(payload, (struct end){flows[i].sent, flows[i].truncated});
        port_send(END, flows[i].stream, payload, sizeof payload);
    }
}

/* How the workload ended by itself; one that was killed after its result did not. */
static struct ending judge(void) {
    if (!exited || stopped) return (struct ending){0, 0};
    if (WIFEXITED(status)) return (struct ending){(uint64_t)WEXITSTATUS(status), 0};
    return (struct ending){0, (uint64_t)WTERMSIG(status)};
}

struct ending run_workload(struct workload *workload, const struct output_limits *limits) {
    current = workload;
    input.pipe = workload->input;
    flows[0] = (struct outflow){workload->stdout_, STREAM_STDOUT, limits->stdout_bytes, 0, STREAM_WINDOW_BYTES, false};
    flows[1] = (struct outflow){workload->stderr_, STREAM_STDERR, limits->stderr_bytes, 0, STREAM_WINDOW_BYTES, false};
    flows[2] = (struct outflow){workload->output, STREAM_OUTPUT, limits->output_bytes, 0, STREAM_WINDOW_BYTES, false};
    /* What came together with START is in the port's buffer already: no poll() would tell. */
    take_frames();
    pump_in();
    while (flowing()) turn();
    send_ends();
    return judge();
}
