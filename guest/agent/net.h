/*
 * The network that the workload sees, and the three doors through which the agent sees what the workload wants of it.
 * net.c makes them in the template; egress.c serves them during the run.
 */
#ifndef MAYFLY_NET_H
#define MAYFLY_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "message.h"

/* Addresses in network order. All are out of 198.18.0.0/15, which belongs to nobody. */
#define NET_OWN_ADDRESS "198.19.255.1"
#define NET_RESOLVER_ADDRESS "198.19.255.53"
enum { NET_LISTEN_PORT = 1, NET_DNS_PORT = 53, NET_REFUSED_MARK = 1 };

/* Before the workload exists. */
void make_network(void);
/* In the workload's root: where it finds its resolver. */
void make_resolver(void);
/* Facts of what is in force. */
void write_network_facts(void (*add)(const char *name, const char *value));

/* Accepts every connection of the workload to anywhere, under the address it was meant for. */
int net_listener(void);
/* Receives every datagram to port 53 of anywhere. */
int net_dns_socket(void);
/* To a server of the workload, at an address of 127.0.0.0/8 or at ::1; -1 when nobody listens there yet. */
int net_dial(uint32_t address, uint16_t port);
/* Receives every first packet of a connection, which waits in the kernel for net_decide. */
int net_questions(void);

/* Ports are in host order, addresses in network order. */
struct question {
    uint32_t packet;
    uint32_t source, target;
    uint16_t source_port, target_port;
};

/* False when there is none at present. A packet that is no first packet of TCP is let go. */
bool net_take_question(struct question *question);

enum decision { DECISION_DROP, DECISION_ACCEPT, DECISION_REFUSE };

/* Lets a packet go, forgets it, or has the kernel answer it with a reset: "connection refused". */
void net_decide(uint32_t packet, enum decision decision);

/* ---- parts of make_network and write_network_facts: queue.c, rules.c --------------------------------------------- */

/* First part of every message to netfilter (struct nfgenmsg). */
struct netfilter {
    uint8_t family, version;
    uint16_t resource;
};

void open_net_queue(void);
void make_net_rules(void);
void tell_net_rules(void (*add)(const char *name, const char *value));

#endif
