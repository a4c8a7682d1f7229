/*
 * The three rules that catch what the workload sends (net.c says why), made in one transaction and read back for the
 * proof.
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "netlink.h"

enum { NFT = 10 << 8, NEW_TABLE = NFT, NEW_CHAIN = NFT | 3, NEW_RULE = NFT | 6, GET_RULE = NFT | 7 };
enum { BATCH_BEGIN = 0x10, BATCH_END = 0x11 };
enum { HOOK_INPUT = 0 /* prerouting */, HOOK_OUTPUT = 3 };
enum { REGISTER = 1, EQUAL = 0, DIFFERENT = 1 };
static const char table[] = "mayfly";

static const struct netfilter ipv4 = {AF_INET, 0, 0};

static size_t begin_expression(struct netlink *packet, const char *name, size_t *element) {
    *element = netlink_nest(packet, 1);
    netlink_text(packet, 1, name);
    return netlink_nest(packet, 2);
}

static void end_expression(struct netlink *packet, size_t data, size_t element) {
    netlink_close(packet, data);
    netlink_close(packet, element);
}

/* An expression whose attributes are all 32-bit numbers: pairs of type and value, ended by type 0. */
static void express(struct netlink *packet, const char *name, const uint32_t (*pairs)[2]) {
    size_t element, data = begin_expression(packet, name, &element);
    for (; (*pairs)[0] != 0; pairs++) netlink_be32(packet, (uint16_t)(*pairs)[0], (*pairs)[1]);
    end_expression(packet, data, element);
}

static void load_meta(struct netlink *packet, uint32_t key) {
    express(packet, "meta", (const uint32_t[][2]){{1, REGISTER}, {2, key}, {0, 0}});
}

/* Base 1: the header of IP, 2: that of TCP. */
static void load_payload(struct netlink *packet, uint32_t base, uint32_t offset, uint32_t length) {
    express(packet, "payload", (const uint32_t[][2]){{1, REGISTER}, {2, base}, {3, offset}, {4, length}, {0, 0}});
}

static void compare(struct netlink *packet, uint32_t how, const void *value, size_t length) {
    size_t element, data = begin_expression(packet, "cmp", &element);
    netlink_be32(packet, 1, REGISTER);
    netlink_be32(packet, 2, how);
    size_t nest = netlink_nest(packet, 3);
    netlink_attribute(packet, 1, value, length);
    netlink_close(packet, nest);
    end_expression(packet, data, element);
}

static void mask_byte(struct netlink *packet, uint8_t mask) {
    const uint8_t none = 0;
    size_t element, data = begin_expression(packet, "bitwise", &element);
    netlink_be32(packet, 1, REGISTER);
    netlink_be32(packet, 2, REGISTER);
    netlink_be32(packet, 3, 1);
    size_t nest = netlink_nest(packet, 4);
    netlink_attribute(packet, 1, &mask, 1);
    netlink_close(packet, nest);
    nest = netlink_nest(packet, 5);
    netlink_attribute(packet, 1, &none, 1);
    netlink_close(packet, nest);
    end_expression(packet, data, element);
}

/* TCP to somewhere else than 127.0.0.0/8 and this machine's own address. */
static void match_outward(struct netlink *packet) {
    enum { META_PROTOCOL = 16, TARGET_OFFSET = 16 };
    const uint8_t tcp = IPPROTO_TCP, loopback = 127;
    const uint32_t own = inet_addr(NET_OWN_ADDRESS);
    load_meta(packet, META_PROTOCOL);
    compare(packet, EQUAL, &tcp, 1);
    load_payload(packet, 1, TARGET_OFFSET, 1);
    compare(packet, DIFFERENT, &loopback, 1);
    load_payload(packet, 1, TARGET_OFFSET, 4);
    compare(packet, DIFFERENT, &own, 4);
}

static void ask(struct netlink *packet) {
    enum { FLAGS_OFFSET = 13, SYN = 2, SYN_AND_ACK = 0x12 };
    const uint8_t syn = SYN;
    match_outward(packet);
    load_payload(packet, 2, FLAGS_OFFSET, 1);
    mask_byte(packet, SYN_AND_ACK);
    compare(packet, EQUAL, &syn, 1);
    size_t element, data = begin_expression(packet, "queue", &element);
    netlink_be16(packet, 1, 0);
    netlink_be16(packet, 2, 1);
    netlink_be16(packet, 3, 0); /* no bypass: with nobody to ask, nothing goes */
    end_expression(packet, data, element);
}

static void refuse(struct netlink *packet) {
    enum { META_MARK = 3 };
    const uint32_t mark = NET_REFUSED_MARK;
    load_meta(packet, META_MARK);
    compare(packet, EQUAL, &mark, sizeof mark);
    express(packet, "reject", (const uint32_t[][2]){{1, 1 /* reset */}, {0, 0}});
}

static void catch(struct netlink *packet) {
    match_outward(packet);
    size_t element, data = begin_expression(packet, "immediate", &element);
    netlink_be32(packet, 1, REGISTER);
    size_t nest = netlink_nest(packet, 2);
    netlink_be16(packet, 1, NET_LISTEN_PORT);
    netlink_close(packet, nest);
    end_expression(packet, data, element);
    express(packet, "tproxy", (const uint32_t[][2]){{1, AF_INET}, {3, REGISTER}, {0, 0}});
}

static const struct chain {
    const char *name;
    uint32_t hook;
    int32_t priority;
    void (*rule)(struct netlink *);
} chains[] = {
    {"ask", HOOK_OUTPUT, -150, ask},
    {"refuse", HOOK_OUTPUT, 0, refuse},
    {"catch", HOOK_INPUT, -150, catch},
};
enum { CHAINS = sizeof chains / sizeof *chains };

static void add_chain(struct netlink *packet, const struct chain *chain) {
    const uint16_t flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    netlink_begin(packet, NEW_CHAIN, flags, &ipv4, sizeof ipv4);
    netlink_text(packet, 1, table);
    netlink_text(packet, 3, chain->name);
    size_t hook = netlink_nest(packet, 4);
    netlink_be32(packet, 1, chain->hook);
    netlink_be32(packet, 2, (uint32_t)chain->priority);
    netlink_close(packet, hook);
    netlink_text(packet, 7, "filter");
    netlink_end(packet);
    netlink_begin(packet, NEW_RULE, flags | NLM_F_APPEND, &ipv4, sizeof ipv4);
    netlink_text(packet, 1, table);
    netlink_text(packet, 2, chain->name);
    size_t expressions = netlink_nest(packet, 4);
    chain->rule(packet);
    netlink_close(packet, expressions);
    netlink_end(packet);
}

void make_net_rules(void) {
    static struct netlink packet;
    const struct netfilter batch = {0, 0, htons(NFT >> 8)};
    netlink_begin(&packet, BATCH_BEGIN, NLM_F_REQUEST, &batch, sizeof batch);
    netlink_end(&packet);
    netlink_begin(&packet, NEW_TABLE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, &ipv4, sizeof ipv4);
    netlink_text(&packet, 1, table);
    netlink_end(&packet);
    for (size_t i = 0; i < CHAINS; i++) add_chain(&packet, &chains[i]);
    netlink_begin(&packet, BATCH_END, NLM_F_REQUEST, &batch, sizeof batch);
    netlink_end(&packet);
    int socket = netlink_open(NETLINK_NETFILTER);
    if (socket < 0 || !netlink_request(socket, &packet, 1 + 2 * CHAINS)) {
        fault(E_TEMPLATE_BUILD, "nf_tables: %s", strerror(errno));
    }
    close(socket);
}

/* ---- proof ------------------------------------------------------------------------------------------------------- */

/* Names of a rule's expressions, as in "meta cmp reject". */
static void name_expressions(const struct attribute *list, char *text, size_t room) {
    const uint8_t *at = list->value, *end = list->value + list->length;
    struct attribute element, name;
    size_t used = 0;
    while (next_attribute(&at, end, &element)) {
        if (!find_attribute(element.value, element.value + element.length, 1, &name) || name.length == 0) continue;
        int more = snprintf(text + used, room - used, "%s%.*s", used > 0 ? " " : "", (int)name.length - 1,
                            (const char *)name.value);
        if (more < 0 || (size_t)more >= room - used) return;
        used += (size_t)more;
    }
}

static void tell_rule(const uint8_t *message, size_t length, void (*add)(const char *, const char *)) {
    const uint8_t *at = message + NLMSG_HEADER_BYTES + sizeof ipv4, *end = message + length;
    struct attribute owner, chain, list;
    char name[80], value[200] = "";
    if (!find_attribute(at, end, 1, &owner) || !find_attribute(at, end, 2, &chain) ||
        !find_attribute(at, end, 4, &list)) {
        return;
    }
    snprintf(name, sizeof name, "net.rule.%.30s.%.30s", (const char *)owner.value, (const char *)chain.value);
    name_expressions(&list, value, sizeof value);
    add(name, value);
}

void tell_net_rules(void (*add)(const char *, const char *)) {
    static uint8_t bytes[16384];
    static struct netlink packet;
    packet.length = 0;
    netlink_begin(&packet, GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, &ipv4, sizeof ipv4);
    netlink_end(&packet);
    int socket = netlink_open(NETLINK_NETFILTER);
    if (socket < 0 || !netlink_request(socket, &packet, 0)) fault(E_CLONE_FAILED, "rules: %s", strerror(errno));
    for (bool done = false; !done;) {
        ssize_t got = recv(socket, bytes, sizeof bytes, 0);
        if (got < NLMSG_HEADER_BYTES) fault(E_CLONE_FAILED, "rules: %s", strerror(errno));
        for (size_t at = 0; (size_t)got - at >= NLMSG_HEADER_BYTES;) {
            uint32_t size;
            uint16_t type;
            memcpy(&size, bytes + at, sizeof size);
            memcpy(&type, bytes + at + 4, sizeof type);
            if (size < NLMSG_HEADER_BYTES || size > (size_t)got - at) fault(E_CLONE_FAILED, "rules: cut short");
            done = done || type == NLMSG_DONE || type == NLMSG_ERROR;
            if (type == NEW_RULE) tell_rule(bytes + at, size, add);
            at += (size + 3) & ~3u;
            if (at >= (size_t)got) break;
        }
    }
    close(socket);
}
