/*
 * The queue in which the first packet of every connection waits in the kernel until it is decided.
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "netlink.h"

static const struct netfilter ipv4 = {AF_INET, 0, 0};
static int questions = -1;

enum { QUEUE = 3 << 8, QUEUE_PACKET = QUEUE, QUEUE_VERDICT = QUEUE | 1, QUEUE_CONFIG = QUEUE | 2 };
/* As much of a packet as is looked at: both headers with all their options. */
enum { QUEUE_COPY_BYTES = 128, QUEUE_LENGTH_MAX = 1024 };

void open_net_queue(void) {
    static struct netlink packet;
    const uint8_t command[4] = {1 /* bind */, 0, 0, 0};
    const uint8_t mode[5] = {0, 0, 0, QUEUE_COPY_BYTES, 2 /* packet */};
    netlink_begin(&packet, QUEUE_CONFIG, NLM_F_REQUEST | NLM_F_ACK, &ipv4, sizeof ipv4);
    netlink_attribute(&packet, 1, command, sizeof command);
    netlink_end(&packet);
    netlink_begin(&packet, QUEUE_CONFIG, NLM_F_REQUEST | NLM_F_ACK, &ipv4, sizeof ipv4);
    netlink_attribute(&packet, 2, mode, sizeof mode);
    netlink_be32(&packet, 3, QUEUE_LENGTH_MAX);
    netlink_end(&packet);
    questions = netlink_open(NETLINK_NETFILTER);
    if (questions < 0 || !netlink_request(questions, &packet, 2)) {
        fault(E_TEMPLATE_BUILD, "queue: %s", strerror(errno));
    }
    fcntl(questions, F_SETFL, O_NONBLOCK);
}

int net_questions(void) {
    return questions;
}

static bool read_question(const uint8_t *at, const uint8_t *end, struct question *question) {
    struct attribute header, payload;
    if (!find_attribute(at, end, 1, &header) || header.length < 4) return false;
    uint32_t packet;
    memcpy(&packet, header.value, sizeof packet);
    *question = (struct question){.packet = ntohl(packet)};
    if (!find_attribute(at, end, 10, &payload) || payload.length < 20) return true;
    const uint8_t *ip = payload.value;
    size_t options = (size_t)(ip[0] & 15) * 4;
    if (ip[0] >> 4 != 4 || ip[9] != IPPROTO_TCP || payload.length < options + 4) return true;
    memcpy(&question->source, ip + 12, 4);
    memcpy(&question->target, ip + 16, 4);
    question->source_port = (uint16_t)(ip[options] << 8 | ip[options + 1]);
    question->target_port = (uint16_t)(ip[options + 2] << 8 | ip[options + 3]);
    return true;
}

bool net_take_question(struct question *question) {
    enum { FIXED = NLMSG_HEADER_BYTES + 4 };
    static uint8_t bytes[4096];
    for (;;) {
        ssize_t got = recv(questions, bytes, sizeof bytes, 0);
        if (got < 0) return false;
        uint16_t type;
        memcpy(&type, bytes + 4, sizeof type);
        if (got < FIXED || type != QUEUE_PACKET || !read_question(bytes + FIXED, bytes + got, question)) continue;
        if (question->target_port != 0 || question->target != 0) return true;
        net_decide(question->packet, DECISION_DROP);
    }
}

void net_decide(uint32_t packet_id, enum decision decision) {
    static struct netlink packet;
    const uint32_t verdict[2] = {htonl(decision == DECISION_DROP ? 0 : 1), htonl(packet_id)};
    packet.length = 0;
    netlink_begin(&packet, QUEUE_VERDICT, NLM_F_REQUEST, &ipv4, sizeof ipv4);
    netlink_attribute(&packet, 2, verdict, sizeof verdict);
    /* The rule compares with the machine's own order of bytes, the queue takes the network's. */
    if (decision == DECISION_REFUSE) netlink_be32(&packet, 3, NET_REFUSED_MARK);
    netlink_end(&packet);
    /* Not answered; what is lost here the workload sends again. */
    (void)netlink_request(questions, &packet, 0);
}
