/*
 * What the parts of the agent share. Read main.c first: it is the story, and each part has one chapter of it.
 *
 * The agent is PID 1 of a machine that lives for one event. It has one thread, takes no memory after its start, and
 * answers whatever it cannot make right with a FAULT and the end of the machine: there is nobody to repair a clone.
 */
#ifndef MAYFLY_AGENT_H
#define MAYFLY_AGENT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "frame.h"
#include "message.h"

#define AGENT_VERSION "0.1.0"
enum { PROTOCOL_VERSION = 1 };

/* A language runtime that is started in a template must say "ready" within this time. */
enum { WARM_SECONDS_MAX = 85 };
/* In a clone it must renew its randomness within this time: less than the host waits for ADOPTED. */
enum { RENEW_SECONDS_MAX = 4 };
/* Scheduling priority of the agent; its children get the usual one. */
enum { AGENT_NICE = -20 };
/* Open files of a runtime before its clone says otherwise. */
enum { RUNTIME_OPEN_FILES = 1024 };
/* Devices appear this long after their driver was loaded, at most. */
enum { DEVICE_SECONDS_MAX = 10 };
/* Whatever was killed is gone after this time. */
enum { KILL_SECONDS_MAX = 5 };
/* A last word is given this long to leave the machine. */
enum { FAULT_SECONDS_MAX = 2 };

/* Where the agent keeps what the workload's view is made of; the workload sees none of these names. */
#define IMAGE_PATH "/image"     /* the base image, read-only; layers above it are /layer1 to /layer3 */
#define SCRATCH_PATH "/scratch" /* the one bounded tmpfs that everything writable lives in */
#define ROOT_PATH "/root"       /* the workload's root: an overlay of the two */
#define BOOT_ID_PATH SCRATCH_PATH "/boot_id"

/* ---- text.c: small files of /proc, /sys and the cgroup ----------------------------------------------------------- */

/* Reads at most `room` - 1 bytes and terminates them; -1 and errno when the file cannot be read. */
ssize_t read_text(const char *path, char *text, size_t room);
bool write_text(const char *path, const char *text);
/* Creates or replaces a file. */
bool make_text(const char *path, const char *text, mode_t mode);
/* "name value" or "name:\tvalue" at the start of a line; NULL when there is none. */
const char *value_after(const char *text, const char *name);
uint64_t number_after(const char *text, const char *name);
uint64_t monotonic_millis(void);

/* ---- mount.c, modules.c, harden.c: from the kernel's first process to a machine that works ----------------------- */

void mount_system(void);
void load_modules(void);
void leave_initramfs(void);
void harden_kernel(void);

/* ---- port.c: the bridge ------------------------------------------------------------------------------------------ */

void port_open(void);
int port_descriptor(void);
/* Poll events to wait for. */
short port_events(void);
/* Moves bytes in and out as far as that is possible now. `events` are those that poll() found. */
void port_move(short events);
/* The next whole frame, if it has arrived; its payload is valid until the next port_take or port_move. */
bool port_take(struct frame *frame, const uint8_t **payload);
/* The same, waiting for it. */
void port_await(struct frame *frame, const uint8_t **payload);
/* Whether a DATA frame of this size can be sent now; the rest of the room is kept for control frames. */
bool port_has_room(uint32_t length);
void port_send(uint8_t type, uint32_t stream, const void *payload, uint32_t length);
void port_send_message(uint8_t type, const struct writer *writer);
/* Waits until everything has left, at most so long. */
void port_flush(unsigned seconds);
/* Both directions go on under the clone's nonce. */
void port_adopt(void);
/* Overwrites what was received: it held secrets. */
void port_forget(void);

/* What a FAULT may say (docs/FORMATS.md); the host takes anything else as the misbehaviour of a guest. */
#define E_TEMPLATE_BUILD "E_TEMPLATE_BUILD"
#define E_CLONE_NOT_UNIQUE "E_CLONE_NOT_UNIQUE"
#define E_CLONE_FAILED "E_CLONE_FAILED"
#define E_FUNCTION_LOAD "E_FUNCTION_LOAD"

/* Says what is wrong and ends the machine. */
_Noreturn void fault(const char *code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- root.c, workload.c: the workload's world and its process ---------------------------------------------------- */

void make_root(uint64_t scratch_bytes);
void resize_scratch(uint64_t scratch_bytes);
uint64_t scratch_bytes(void);
/* Called in the first process of the workload's namespaces. NULL, or what could not be done; errno says why. */
const char *enter_root(void);

struct program {
    char **argv;
    char **env;
    uid_t uid;
    gid_t gid;
    uint64_t open_files;
    /* A runtime reads fd 3 and writes fd 4; an executable has stdin and stdout instead. */
    bool runtime;
};

struct workload {
    pid_t pid;
    int pidfd;
    /* The agent's ends of its pipes; -1 when closed or absent. */
    int input, output, stdout_, stderr_;
    /* Written to, an executable starts; it reports there why it could not. */
    int hold, report;
    bool runtime;
};

void make_namespaces(void);
/* Starts a runtime, or an executable up to the point right before its execve. */
void spawn_workload(const struct program *program, struct workload *workload);
/* Lets a held executable go; a fault of the function when it cannot be executed. */
void release_workload(struct workload *workload);
/* Ends a runtime that is not wanted. */
void discard_workload(struct workload *workload);
void limit_open_files(pid_t pid, uint64_t open_files);
/* NULL, or what could not be given up: every privilege, for ever. */
const char *drop_privileges(uid_t uid, gid_t gid);

/* ---- policy.c, seccomp.c, sha256.c: what the kernel holds the workload to ---------------------------------------- */

#define POLICY_NAME "mayfly"
/* A process writes this to its own POLICY_SELF to be under the policy, and everything that it starts. */
#define POLICY_ENTER "changeprofile " POLICY_NAME
#define POLICY_SELF "/proc/self/attr/apparmor/current"

/* What this kernel can enforce, in the form in which apparmor_parser reads it. Empty without AppArmor. */
const char *policy_features(void);
/* Puts a compiled policy in the place of the last one, for every thread that is under it. */
void load_policy(struct field policy);
/* Its name and its digest, as the kernel has them; NULL when there is not exactly this one. */
const char *loaded_policy(void);

/* In the process itself: what no workload may have from its start. NULL, or what could not be done. */
const char *install_first_filter(void);
/* Puts every thread of a process under a filter of system calls, and keeps what the kernel then says it has. */
void install_filter(pid_t pid, struct field filter);
/* SHA-256 of the filter that the kernel gave back, 64 hex digits. */
const char *installed_filter(void);

enum { SHA256_BYTES = 32 };
void sha256(const void *bytes, size_t length, uint8_t digest[SHA256_BYTES]);

/* ---- cgroup.c ---------------------------------------------------------------------------------------------------- */

struct resources {
    uint64_t memory_bytes, cpu_quota_micros, cpu_period_micros, pids;
};

struct usage {
    uint64_t cpu_micros, memory_peak_bytes, oom_kills, pids_max_hits;
};

#define CGROUP_PATH "/sys/fs/cgroup/workload"
/* Where a runtime warms up. What it has touched by then stays charged here when its processes move. */
#define WARM_UP_PATH "/sys/fs/cgroup/runtime"

void make_cgroup(void);
void limit_cgroup(const struct resources *resources);
struct usage read_usage(void);
void kill_cgroup(void);
/* From the warm-up group into the workload's own. */
void move_runtime(void);
/* An empty group in place of a used one. */
void renew_cgroup(void);

/* ---- identity.c, files.c, proof.c, streams.c --------------------------------------------------------------------- */

/* Makes this clone different from every other one of its template, and reports what it is now. */
void adopt_identity(struct message adopt, struct writer *reply);

/* FILE messages and the code stream, until END of that stream. */
void receive_code(void);

/* Facts of docs/FORMATS.md, read from the kernel. */
void write_proof(const struct workload *workload, struct writer *proof);

struct output_limits {
    uint64_t stdout_bytes, stderr_bytes, output_bytes;
};

struct ending {
    uint64_t exit_code, signal;
};

/* ---- egress.c: the workload's connections, each a stream of the bridge ------------------------------------------- */

struct pollfd;
enum { EGRESS_POLLS_MAX = 3 + 128 };

/* What to wait for, at most EGRESS_POLLS_MAX; returns how many. Lowers `*millis` to what none can wait longer than. */
size_t egress_wait(struct pollfd *wanted, int *millis);
/* Does what is possible after that poll(). */
void egress_turn(const struct pollfd *polled);
/* True when the frame belonged to a connection or a query. */
bool egress_frame(const struct frame *frame, const uint8_t *payload);
/* The workload has ended: no new connection, and whether bytes of one are still to be sent. */
bool egress_drains(void);
/* A number that was never used, for a connection or a query of the workload. */
uint32_t egress_new_stream(void);

/* ---- dns.c ------------------------------------------------------------------------------------------------------- */

void dns_take_query(void);
void dns_answer(uint32_t stream, const uint8_t *payload, uint32_t length);

/* From START to the END of all streams. */
struct ending run_workload(struct workload *workload, const struct output_limits *limits);

#endif
