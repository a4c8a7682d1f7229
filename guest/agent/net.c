/*
 * There is no network card. Every address is local: a route sends everything to `lo`, where
 *
 *   TCP      each first packet waits in a queue until the host has decided; then it arrives at the agent's listener,
 *            whatever address and port it is for, or is answered with a reset
 *   DNS      UDP to port 53 of any address arrives at the agent's socket
 *   others   find nobody who listens: unreachable at once
 *   IPv6     has no route but ::1
 *
 * No address is translated, so there is no table of connections in the kernel that could fill up. 127.0.0.0/8 is left
 * alone: programs of the workload talk to one another.
 *
 *   output   ask      first packet of TCP  -> queue 0 (agent)     mark 1 when the host refuses
 *   output   refuse   mark 1               -> TCP reset
 *   input    catch    TCP                  -> tproxy to the listener
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "netlink.h"

static int listener = -1, dns = -1;

/* ---- address and route ------------------------------------------------------------------------------------------- */

static uint32_t loopback_index(void) {
    return if_nametoindex("lo");
}

static void make_route(void) {
    enum { RTM_NEWADDR = 20, RTM_NEWROUTE = 24, IFA_ADDRESS = 1, IFA_LOCAL = 2, RTA_OIF = 4, RTA_PREFSRC = 7 };
    const uint32_t own = inet_addr(NET_OWN_ADDRESS), lo = loopback_index();
    const struct {
        uint8_t family, prefix, flags, scope;
        uint32_t index;
    } address = {AF_INET, 32, 0, 0, lo};
    /* Table 255, local; protocol 4, static; scope 254, this host; type 2, local: every address is this machine's. */
    const struct {
        uint8_t family, target_bits, source_bits, tos, table, protocol, scope, type;
        uint32_t flags;
    } route = {AF_INET, 0, 0, 0, 255, 4, 254, 2, 0};
    struct netlink packet = {.length = 0};
    netlink_begin(&packet, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, &address, sizeof address);
    netlink_attribute(&packet, IFA_LOCAL, &own, sizeof own);
    netlink_attribute(&packet, IFA_ADDRESS, &own, sizeof own);
    netlink_end(&packet);
    netlink_begin(&packet, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, &route, sizeof route);
    netlink_attribute(&packet, RTA_OIF, &lo, sizeof lo);
    netlink_attribute(&packet, RTA_PREFSRC, &own, sizeof own);
    netlink_end(&packet);
    int socket = netlink_open(NETLINK_ROUTE);
    if (socket < 0 || !netlink_request(socket, &packet, 2)) fault(E_TEMPLATE_BUILD, "route: %s", strerror(errno));
    close(socket);
}

/* ---- the doors --------------------------------------------------------------------------------------------------- */

static int open_door(int type, uint16_t port) {
    const int yes = 1;
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    int made = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0 || setsockopt(made, IPPROTO_IP, IP_TRANSPARENT, &yes, sizeof yes) != 0 ||
        setsockopt(made, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes) != 0 ||
        bind(made, (const struct sockaddr *)&any, sizeof any) != 0 || (type == SOCK_STREAM && listen(made, 128) != 0)) {
        fault(E_TEMPLATE_BUILD, "port %u: %s", port, strerror(errno));
    }
    return made;
}

void make_network(void) {
    make_route();
    listener = open_door(SOCK_STREAM, NET_LISTEN_PORT);
    dns = open_door(SOCK_DGRAM, NET_DNS_PORT);
    open_net_queue();
    make_net_rules();
}

void make_resolver(void) {
    /* An image may have a link there, to a file that only a running system would have. */
    unlink(ROOT_PATH "/etc/resolv.conf");
    if (!make_text(ROOT_PATH "/etc/resolv.conf", "nameserver " NET_RESOLVER_ADDRESS "\n", 0444)) {
        fault(E_TEMPLATE_BUILD, "resolv.conf: %s", strerror(errno));
    }
}

int net_listener(void) {
    return listener;
}

int net_dns_socket(void) {
    return dns;
}

/* Over loopback the kernel has shaken hands with itself by the time that connect() returns. */
static int connect_to(const void *address, socklen_t length, int family) {
    int made = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd wanted = {.fd = made, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof error;
    bool begun = made >= 0 && (connect(made, address, length) == 0 || errno == EINPROGRESS);
    if (begun && poll(&wanted, 1, 0) == 1 && getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) {
        return made;
    }
    if (made >= 0) close(made);
    return -1;
}

int net_dial(uint32_t address, uint16_t port) {
    const struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = address,
    };
    /* A server that has asked for "localhost" may listen there alone. */
    const struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT,
    };
    int made = connect_to(&four, sizeof four, AF_INET);
    return made >= 0 ? made : connect_to(&six, sizeof six, AF_INET6);
}

/* ---- proof ------------------------------------------------------------------------------------------------------- */

/* What the kernel would do with a packet to an address of the world: the answer's type and interface. */
static void tell_route(void (*add)(const char *, const char *)) {
    enum { RTM_GETROUTE = 26, RTA_DST = 1, RTA_OIF = 4, ROUTE_BYTES = 12, LOCAL = 2 };
    static uint8_t bytes[1024];
    static struct netlink packet;
    const uint8_t route[ROUTE_BYTES] = {AF_INET, 32};
    const uint32_t target = inet_addr("192.0.2.1");
    packet.length = 0;
    netlink_begin(&packet, RTM_GETROUTE, NLM_F_REQUEST, route, sizeof route);
    netlink_attribute(&packet, RTA_DST, &target, sizeof target);
    netlink_end(&packet);
    int socket = netlink_open(NETLINK_ROUTE);
    if (socket < 0 || !netlink_request(socket, &packet, 0)) fault(E_CLONE_FAILED, "route: %s", strerror(errno));
    ssize_t got = recv(socket, bytes, sizeof bytes, 0);
    close(socket);
    enum { FIXED = NLMSG_HEADER_BYTES + ROUTE_BYTES };
    struct attribute interface;
    uint32_t index = 0;
    if (got > FIXED && find_attribute(bytes + FIXED, bytes + got, RTA_OIF, &interface) && interface.length == 4) {
        memcpy(&index, interface.value, sizeof index);
    }
    bool ours = index == loopback_index() && bytes[NLMSG_HEADER_BYTES + 7] == LOCAL;
    add("net.route", ours ? "local lo" : "another");
}

void write_network_facts(void (*add)(const char *name, const char *value)) {
    tell_route(add);
    tell_net_rules(add);
}
