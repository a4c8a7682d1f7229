/*
 * DNS queries of the workload: each datagram to port 53 of any address is a stream of the bridge, and so is its answer.
 */
#include "agent.h"
#include "net.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum { QUERIES_MAX = 64 };

/* Who is owed an answer; the oldest is forgotten first, as UDP allows. */
static struct query {
    uint32_t stream;
    struct sockaddr_in client;
    struct in_addr asked;
} queries[QUERIES_MAX];

union control {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
};

void dns_take_query(void) {
    static uint8_t bytes[DNS_BYTES_MAX + 1];
    struct sockaddr_in client;
    union control control;
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {
        .msg_name = &client, .msg_namelen = sizeof client, .msg_iov = &part, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = sizeof control,
    };
    ssize_t got = recvmsg(net_dns_socket(), &message, 0);
    if (got < DNS_BYTES_MIN || got > DNS_BYTES_MAX) return;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_level != IPPROTO_IP || header->cmsg_type != IP_PKTINFO) return;
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(header), sizeof info);
    uint32_t stream = egress_new_stream();
    queries[stream % QUERIES_MAX] = (struct query){stream, client, info.ipi_addr};
    port_send(QUERY, stream, bytes, (uint32_t)got);
}

/* The answer comes from the address that was asked: a resolver takes no other. */
void dns_answer(uint32_t stream, const uint8_t *payload, uint32_t length) {
    struct query *query = &queries[stream % QUERIES_MAX];
    if (query->stream != stream) return;
    union control control;
    memset(&control, 0, sizeof control);
    struct iovec part = {(void *)(uintptr_t)payload, length};
    struct msghdr message = {
        .msg_name = &query->client, .msg_namelen = sizeof query->client, .msg_iov = &part, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = sizeof control,
    };
    const struct in_pktinfo info = {.ipi_spec_dst = query->asked};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = IP_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(header), &info, sizeof info);
    (void)sendmsg(net_dns_socket(), &message, MSG_NOSIGNAL);
    query->stream = 0;
}
