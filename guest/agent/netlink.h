/*
 * Netlink messages, built and read by hand: the agent has no library and musl-gcc no kernel headers. Numbers of
 * messages and attributes stand where they are used, by their names in linux/netfilter and linux/rtnetlink.h.
 */
#ifndef MAYFLY_NETLINK_H
#define MAYFLY_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NETLINK_ROUTE = 0, NETLINK_NETFILTER = 12 };
enum { NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_DUMP = 0x300, NLM_F_CREATE = 0x400, NLM_F_APPEND = 0x800 };
enum { NLMSG_ERROR = 2, NLMSG_DONE = 3, NLMSG_HEADER_BYTES = 16, ATTRIBUTE_HEADER_BYTES = 4 };

/* A packet of one or more messages under construction; what does not fit sets `overflow`. */
struct netlink {
    uint8_t bytes[4096];
    size_t length;
    size_t message; /* where the current one starts */
    uint32_t sequence;
    bool overflow;
};

/* The fixed part of a message that follows the header of all. */
void netlink_begin(struct netlink *packet, uint16_t type, uint16_t flags, const void *fixed, size_t length);
void netlink_end(struct netlink *packet);
void netlink_attribute(struct netlink *packet, uint16_t type, const void *value, size_t length);
void netlink_text(struct netlink *packet, uint16_t type, const char *text);
void netlink_be16(struct netlink *packet, uint16_t type, uint16_t value);
void netlink_be32(struct netlink *packet, uint16_t type, uint32_t value);
size_t netlink_nest(struct netlink *packet, uint16_t type);
void netlink_close(struct netlink *packet, size_t nest);

struct attribute {
    uint16_t type;
    const uint8_t *value;
    size_t length;
};

/* The attribute at `*at`, which moves on; false at the end or at one that is cut short. */
bool next_attribute(const uint8_t **at, const uint8_t *end, struct attribute *attribute);
bool find_attribute(const uint8_t *at, const uint8_t *end, uint16_t type, struct attribute *attribute);

/* -1 and errno when there is none. */
int netlink_open(int protocol);
/* Sends, and waits for as many acknowledgements; false and errno when one is an error. */
bool netlink_request(int socket, const struct netlink *packet, unsigned acknowledgements);

#endif
