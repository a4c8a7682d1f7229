#include "netlink.h"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* linux/netlink.h */
struct sockaddr_nl {
    uint16_t family, pad;
    uint32_t pid, groups;
};

static size_t aligned(size_t length) {
    return (length + 3) & ~(size_t)3;
}

static void append(struct netlink *packet, const void *bytes, size_t length) {
    size_t room = aligned(length);
    if (packet->overflow || room > sizeof packet->bytes - packet->length) {
        packet->overflow = true;
        return;
    }
    memset(packet->bytes + packet->length, 0, room);
    if (length > 0) memcpy(packet->bytes + packet->length, bytes, length);
    packet->length += room;
}

void netlink_begin(struct netlink *packet, uint16_t type, uint16_t flags, const void *fixed, size_t length) {
    struct {
        uint32_t length;
        uint16_t type, flags;
        uint32_t sequence, pid;
    } header = {0, type, flags, ++packet->sequence, 0};
    packet->message = packet->length;
    append(packet, &header, sizeof header);
    append(packet, fixed, length);
}

void netlink_end(struct netlink *packet) {
    if (packet->overflow) return;
    uint32_t length = (uint32_t)(packet->length - packet->message);
    memcpy(packet->bytes + packet->message, &length, sizeof length);
}

void netlink_attribute(struct netlink *packet, uint16_t type, const void *value, size_t length) {
    const uint16_t header[2] = {(uint16_t)(ATTRIBUTE_HEADER_BYTES + length), type};
    append(packet, header, sizeof header);
    append(packet, value, length);
}

void netlink_text(struct netlink *packet, uint16_t type, const char *text) {
    netlink_attribute(packet, type, text, strlen(text) + 1);
}

void netlink_be16(struct netlink *packet, uint16_t type, uint16_t value) {
    uint16_t swapped = htons(value);
    netlink_attribute(packet, type, &swapped, sizeof swapped);
}

void netlink_be32(struct netlink *packet, uint16_t type, uint32_t value) {
    uint32_t swapped = htonl(value);
    netlink_attribute(packet, type, &swapped, sizeof swapped);
}

enum { NLA_F_NESTED = 0x8000, NLA_TYPE_MASK = 0x3fff };

size_t netlink_nest(struct netlink *packet, uint16_t type) {
    size_t nest = packet->length;
    netlink_attribute(packet, type | NLA_F_NESTED, NULL, 0);
    return nest;
}

void netlink_close(struct netlink *packet, size_t nest) {
    if (packet->overflow) return;
    uint16_t length = (uint16_t)(packet->length - nest);
    memcpy(packet->bytes + nest, &length, sizeof length);
}

bool next_attribute(const uint8_t **at, const uint8_t *end, struct attribute *attribute) {
    size_t left = (size_t)(end - *at);
    uint16_t header[2];
    if (*at >= end || left < ATTRIBUTE_HEADER_BYTES) return false;
    memcpy(header, *at, sizeof header);
    if (header[0] < ATTRIBUTE_HEADER_BYTES || header[0] > left) return false;
    attribute->type = header[1] & NLA_TYPE_MASK;
    attribute->value = *at + ATTRIBUTE_HEADER_BYTES;
    attribute->length = header[0] - ATTRIBUTE_HEADER_BYTES;
    *at += aligned(header[0]) > left ? left : aligned(header[0]);
    return true;
}

bool find_attribute(const uint8_t *at, const uint8_t *end, uint16_t type, struct attribute *attribute) {
    while (next_attribute(&at, end, attribute)) {
        if (attribute->type == type) return true;
    }
    return false;
}

int netlink_open(int protocol) {
    int made = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    const struct sockaddr_nl own = {.family = AF_NETLINK};
    if (made >= 0 && bind(made, (const struct sockaddr *)&own, sizeof own) == 0) return made;
    int why = errno;
    if (made >= 0) close(made);
    errno = why;
    return -1;
}

/* One packet of the kernel's may hold several answers. */
static bool take_acknowledgements(const uint8_t *bytes, size_t length, unsigned *left) {
    for (size_t at = 0; length - at >= NLMSG_HEADER_BYTES + 4;) {
        uint32_t size;
        uint16_t type;
        int32_t error;
        memcpy(&size, bytes + at, sizeof size);
        memcpy(&type, bytes + at + 4, sizeof type);
        memcpy(&error, bytes + at + NLMSG_HEADER_BYTES, sizeof error);
        if (size < NLMSG_HEADER_BYTES || size > length - at) break;
        if (type == NLMSG_ERROR && error != 0) {
            errno = -error;
            return false;
        }
        if (type == NLMSG_ERROR && *left > 0) --*left;
        at += aligned(size);
        if (at >= length) break;
    }
    return true;
}

bool netlink_request(int socket, const struct netlink *packet, unsigned acknowledgements) {
    static uint8_t answer[8192];
    if (packet->overflow) {
        errno = EMSGSIZE;
        return false;
    }
    if (send(socket, packet->bytes, packet->length, 0) != (ssize_t)packet->length) return false;
    while (acknowledgements > 0) {
        ssize_t got = recv(socket, answer, sizeof answer, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 || !take_acknowledgements(answer, (size_t)got, &acknowledgements)) return false;
    }
    return true;
}
