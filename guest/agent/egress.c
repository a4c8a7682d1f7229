/*
 * The workload's connections. Each is a stream of the bridge: the first packet waits in the kernel while the host is
 * asked (OPEN), and what the host says is what the workload's connect() gets. From there on bytes, half-closes and
 * resets go through as they come, each direction within the credit that its receiver has given. The other way round the
 * host asks (OPEN) for a connection to a server of the workload, and has it as soon as somebody listens.
 *
 *   FREE -> ASKING (OPEN sent) -> APPROVED (ACCEPT came, the kernel shakes hands) -> CONNECTED -> FREE
 *   FREE -> DIALLING (OPEN came, tried again and again) -> CONNECTED (ACCEPT sent) -> FREE
 *
 * A slot is free again when both directions have ended or either side has reset. Frames of a stream that is over may
 * still be under way and are ignored; its number is never used again.
 */
#include "agent.h"
#include "net.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = EGRESS_POLLS_MAX - 3, CHUNK_BYTES = 32 * 1024 };
/* The kernel's handshake with itself takes no time; a workload may have given up meanwhile. */
enum { HANDSHAKE_MILLIS = 5000 };
/* A server that does not listen yet is tried again so soon. */
enum { REDIAL_MILLIS = 20 };
/* What was written before the workload's end is given this long to leave. */
enum { DRAIN_MILLIS = 2000 };

enum phase { FREE, ASKING, APPROVED, DIALLING, CONNECTED };

static struct connection {
    enum phase phase;
    uint32_t stream;
    struct question question;
    uint64_t deadline;
    int socket;
    /* To the host. */
    uint32_t window;
    uint64_t sent;
    bool sent_end;
    /* To the workload: whatever the window lets the host send has a place here. */
    uint32_t start, filled, ungranted;
    uint64_t received;
    bool got_end;
    uint8_t bytes[EGRESS_WINDOW_BYTES];
} connections[CONNECTIONS_MAX];

static uint32_t next_stream = EGRESS_STREAM_MIN;
/* Of the host's own, the next one or a later one. */
static uint32_t next_of_host = HOST_STREAM_MIN;
/* Which connections stand at each place of the last egress_wait. */
static struct connection *waiting[CONNECTIONS_MAX];
static size_t waiting_count;
/* Who comes first this time. */
static unsigned turn_number;
static bool ended;
static uint64_t drain_deadline;

static uint32_t least(uint64_t a, uint64_t b) {
    return (uint32_t)(a < b ? a : b);
}

/* ---- ends of connections ----------------------------------------------------------------------------------------- */

static void reset_socket(int socket) {
    const struct linger at_once = {1, 0};
    setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(socket);
}

static void drop(struct connection *connection) {
    if (connection->phase == ASKING) net_decide(connection->question.packet, DECISION_REFUSE);
    if (connection->phase == CONNECTED) reset_socket(connection->socket);
    connection->phase = FREE;
}

static void drop_and_tell(struct connection *connection) {
    const uint8_t reason = RESET_GONE;
    drop(connection);
    port_send(RESET, connection->stream, &reason, 1);
}

static void finish_if_over(struct connection *connection) {
    if (connection->phase != CONNECTED || !connection->got_end || connection->filled > 0) return;
    if (!connection->sent_end) return;
    close(connection->socket);
    connection->phase = FREE;
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

static struct connection *find_pair(const struct question *asked) {
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        const struct question *known = &connections[i].question;
        if (connections[i].phase != FREE && known->source == asked->source && known->target == asked->target &&
            known->source_port == asked->source_port && known->target_port == asked->target_port) {
            return &connections[i];
        }
    }
    return NULL;
}

static struct connection *find_free(void) {
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (connections[i].phase == FREE) return &connections[i];
    }
    return NULL;
}

static void begin(struct connection *connection, enum phase phase, uint32_t stream) {
    connection->phase = phase;
    connection->stream = stream;
    connection->question = (struct question){0};
    connection->socket = -1;
    connection->window = EGRESS_WINDOW_BYTES;
    connection->sent = connection->received = 0;
    connection->start = connection->filled = connection->ungranted = 0;
    connection->sent_end = connection->got_end = false;
}

uint32_t egress_new_stream(void) {
    return next_stream++;
}

static void ask_host(const struct question *question) {
    struct connection *known = find_pair(question);
    if (known != NULL && known->phase != CONNECTED) {
        /* The same packet again, because the first one is still waiting. */
        net_decide(question->packet, known->phase == ASKING ? DECISION_DROP : DECISION_ACCEPT);
        return;
    }
    /* A port that is used again: what is left of its last connection is over. */
    if (known != NULL) drop_and_tell(known);
    struct connection *connection = find_free();
    if (connection == NULL || ended || question->target_port == 0) {
        net_decide(question->packet, DECISION_REFUSE);
        return;
    }
    begin(connection, ASKING, next_stream++);
    connection->question = *question;
    uint8_t payload[OPEN_BYTES];
    open_write(payload, question->target, question->target_port);
    port_send(OPEN, connection->stream, payload, sizeof payload);
}

static void take_questions(void) {
    struct question question;
    while (port_has_room(CHUNK_BYTES) && net_take_question(&question)) ask_host(&question);
}

static void accept_one(int made, const struct sockaddr_in *client) {
    struct sockaddr_in target;
    socklen_t length = sizeof target;
    struct connection *connection = NULL;
    if (getsockname(made, (struct sockaddr *)&target, &length) == 0) {
        connection = find_pair(&(struct question){
            .source = client->sin_addr.s_addr, .source_port = ntohs(client->sin_port),
            .target = target.sin_addr.s_addr, .target_port = ntohs(target.sin_port),
        });
    }
    /* Nobody was asked about a connection to the listener's own port. */
    if (connection == NULL || connection->phase != APPROVED) {
        reset_socket(made);
        return;
    }
    connection->socket = made;
    connection->phase = CONNECTED;
}

static void accept_all(void) {
    struct sockaddr_in client;
    socklen_t length = sizeof client;
    int made;
    while ((made = accept4(net_listener(), (struct sockaddr *)&client, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        accept_one(made, &client);
        length = sizeof client;
    }
}

/* ---- connections of the host ------------------------------------------------------------------------------------- */

static void dial(struct connection *connection) {
    int made = net_dial(connection->question.target, connection->question.target_port);
    connection->deadline = monotonic_millis() + REDIAL_MILLIS;
    if (made < 0) return;
    connection->socket = made;
    connection->phase = CONNECTED;
    port_send(ACCEPT, connection->stream, NULL, 0);
}

static void take_order(uint32_t stream, const uint8_t *payload) {
    struct connection *connection = find_free();
    if (stream < next_of_host || open_check(payload) != NULL) fault(E_CLONE_FAILED, "connection %u: open", stream);
    next_of_host = stream + 1;
    uint32_t target;
    memcpy(&target, payload + 4, sizeof target);
    if (connection == NULL || ntohl(target) >> 24 != 127) {
        const uint8_t reason = connection == NULL ? RESET_LIMIT : RESET_DENIED;
        port_send(RESET, stream, &reason, 1);
        return;
    }
    begin(connection, DIALLING, stream);
    connection->question.target = target;
    connection->question.target_port = read_u16(payload + 2);
    dial(connection);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void pump_out(struct connection *connection) {
    static uint8_t chunk[CHUNK_BYTES];
    if (connection->phase != CONNECTED || connection->sent_end || connection->window == 0) return;
    if (!port_has_room(CHUNK_BYTES)) return;
    ssize_t got = recv(connection->socket, chunk, least(sizeof chunk, connection->window), 0);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) drop_and_tell(connection);
        return;
    }
    if (got > 0) {
        port_send(DATA, connection->stream, chunk, (uint32_t)got);
        connection->sent += (uint64_t)got;
        connection->window -= (uint32_t)got;
        return;
    }
    uint8_t payload[9];
    end_write(payload, (struct end){connection->sent, 0});
    port_send(END, connection->stream, payload, sizeof payload);
    connection->sent_end = true;
    finish_if_over(connection);
}

static void pump_in(struct connection *connection) {
    while (connection->phase == CONNECTED && connection->filled > 0) {
        uint32_t most = least(connection->filled, EGRESS_WINDOW_BYTES - connection->start);
        ssize_t sent = send(connection->socket, connection->bytes + connection->start, most, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR) drop_and_tell(connection);
            break;
        }
        connection->start = (connection->start + (uint32_t)sent) % EGRESS_WINDOW_BYTES;
        connection->filled -= (uint32_t)sent;
        connection->ungranted += (uint32_t)sent;
    }
    if (connection->phase != CONNECTED) return;
    if (connection->got_end) {
        if (connection->filled == 0) shutdown(connection->socket, SHUT_WR);
        finish_if_over(connection);
    } else if (connection->ungranted >= EGRESS_WINDOW_BYTES / 2) {
        uint8_t credit[4];
        write_u32(credit, connection->ungranted);
        port_send(CREDIT, connection->stream, credit, sizeof credit);
        connection->ungranted = 0;
    }
}

/* ---- frames of the host ------------------------------------------------------------------------------------------ */

static _Noreturn void wrong(uint32_t stream, violation what) {
    fault(E_CLONE_FAILED, "connection %u: %s", stream, what);
}

static void take_data(struct connection *connection, const uint8_t *bytes, uint32_t length) {
    if (connection->phase == ASKING || connection->phase == DIALLING) wrong(connection->stream, "order");
    if (connection->got_end) wrong(connection->stream, "after-end");
    if (length > EGRESS_WINDOW_BYTES - connection->filled - connection->ungranted) {
        wrong(connection->stream, "no-credit");
    }
    uint32_t at = (connection->start + connection->filled) % EGRESS_WINDOW_BYTES;
    uint32_t first = least(length, EGRESS_WINDOW_BYTES - at);
    memcpy(connection->bytes + at, bytes, first);
    memcpy(connection->bytes, bytes + first, length - first);
    connection->filled += length;
    connection->received += length;
    pump_in(connection);
}

static void take_end(struct connection *connection, const uint8_t *payload) {
    struct end end;
    violation broken = end_read(payload, &end);
    if (broken != NULL) wrong(connection->stream, broken);
    if (connection->phase == ASKING || connection->phase == DIALLING) wrong(connection->stream, "order");
    if (connection->got_end) wrong(connection->stream, "after-end");
    if (end.total_bytes != connection->received) wrong(connection->stream, "end-total");
    connection->got_end = true;
    pump_in(connection);
}

static void take_credit(struct connection *connection, uint32_t bytes) {
    if (bytes == 0 || bytes > EGRESS_WINDOW_BYTES - connection->window) wrong(connection->stream, "credit");
    connection->window += bytes;
}

static void take_acceptance(struct connection *connection) {
    if (connection->phase != ASKING) wrong(connection->stream, "order");
    connection->phase = APPROVED;
    connection->deadline = monotonic_millis() + HANDSHAKE_MILLIS;
    net_decide(connection->question.packet, DECISION_ACCEPT);
}

bool egress_frame(const struct frame *frame, const uint8_t *payload) {
    if (frame->type == OPEN) {
        take_order(frame->stream, payload);
        return true;
    }
    if (frame->stream >= (frame->stream < HOST_STREAM_MIN ? next_stream : next_of_host)) return false;
    if (frame->type == ANSWER) {
        dns_answer(frame->stream, payload, frame->length);
        return true;
    }
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &connections[i];
        if (connection->phase == FREE || connection->stream != frame->stream) continue;
        if (frame->type == DATA) take_data(connection, payload, frame->length);
        else if (frame->type == END) take_end(connection, payload);
        else if (frame->type == CREDIT) take_credit(connection, read_u32(payload));
        else if (frame->type == ACCEPT) take_acceptance(connection);
        else if (frame->type == RESET && reset_check(payload) == NULL) drop(connection);
        else return false;
        return true;
    }
    return true;
}

/* ---- the loop's two halves --------------------------------------------------------------------------------------- */

static void wait_until(uint64_t deadline, uint64_t now, int *millis) {
    int left = deadline > now ? (int)(deadline - now) : 0;
    if (*millis < 0 || left < *millis) *millis = left;
}

size_t egress_wait(struct pollfd *wanted, int *millis) {
    const bool room = port_has_room(CHUNK_BYTES);
    uint64_t now = monotonic_millis();
    wanted[0] = (struct pollfd){.fd = room && !ended ? net_questions() : -1, .events = POLLIN};
    wanted[1] = (struct pollfd){.fd = net_listener(), .events = POLLIN};
    wanted[2] = (struct pollfd){.fd = room && !ended ? net_dns_socket() : -1, .events = POLLIN};
    waiting_count = 0;
    turn_number++;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &connections[(i + turn_number) % CONNECTIONS_MAX];
        if (connection->phase == APPROVED || connection->phase == DIALLING) {
            wait_until(connection->deadline, now, millis);
        }
        if (connection->phase != CONNECTED) continue;
        short events = 0;
        if (room && !connection->sent_end && connection->window > 0) events |= POLLIN;
        if (connection->filled > 0) events |= POLLOUT;
        if (events == 0) continue;
        wanted[3 + waiting_count] = (struct pollfd){.fd = connection->socket, .events = events};
        waiting[waiting_count++] = connection;
    }
    if (ended) wait_until(drain_deadline, now, millis);
    return 3 + waiting_count;
}

void egress_turn(const struct pollfd *polled) {
    uint64_t now = monotonic_millis();
    if (polled[1].revents != 0) accept_all();
    for (size_t i = 0; i < waiting_count; i++) {
        /* What came first in this turn may have ended another one and given its slot away. */
        if (polled[3 + i].revents == 0 || waiting[i]->socket != polled[3 + i].fd) continue;
        pump_in(waiting[i]);
        pump_out(waiting[i]);
    }
    if (polled[0].revents != 0) take_questions();
    if (polled[2].revents != 0) dns_take_query();
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (connections[i].deadline > now) continue;
        if (connections[i].phase == APPROVED) drop_and_tell(&connections[i]);
        if (connections[i].phase == DIALLING) dial(&connections[i]);
    }
}

bool egress_drains(void) {
    if (!ended) {
        ended = true;
        drain_deadline = monotonic_millis() + DRAIN_MILLIS;
    }
    if (monotonic_millis() >= drain_deadline) return false;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (connections[i].phase == CONNECTED && !connections[i].sent_end) return true;
    }
    return false;
}
