/*
 * The filter of system calls. A warm runtime has been running for long, in many threads, and in a language of its own.
 * So the agent has the process itself ask for it: it stops the main thread at its next system call, makes another one
 * of that (seccomp, for all threads at once), and lets the thread make its own again. Nothing in the process has to
 * know of it, and it is the same for a runtime and for an executable that is still held.
 *
 * Then it asks the kernel which filter that thread is under, and keeps the digest of the answer: not of what was sent.
 *
 * Before that, and from its first instruction on, a workload has a filter of one line: io_uring does not exist. A
 * runtime that had made itself a ring in the template could not use it under any event's filter (Node aborts).
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* linux/seccomp.h and linux/ptrace.h, which musl-gcc does not find. */
enum { SET_MODE_FILTER = 1, FILTER_TSYNC = 1, GET_FILTER = 0x420c };
enum { INSTRUCTION_BYTES = 8, INSTRUCTIONS_MAX = 4096, RED_ZONE_BYTES = 128, STOPS_MAX = 32 };
/* What waitpid says of a stop, without its lowest byte. */
enum { STOPPED_AS_ASKED = SIGTRAP | PTRACE_EVENT_STOP << 8, STOPPED_AT_CALL = SIGTRAP | 0x80 };

/* struct sock_fprog */
struct program_header {
    uint16_t length;
    uint64_t address;
};

/* struct sock_filter */
struct instruction {
    uint16_t code;
    uint8_t if_true, if_false;
    uint32_t value;
};

static uint8_t given_back[INSTRUCTIONS_MAX * INSTRUCTION_BYTES];
static char digest[2 * SHA256_BYTES + 1] = "none";

static void must(bool done, const char *what) {
    if (!done) fault(E_CLONE_FAILED, "filter, %s: %s", what, strerror(errno));
}

/* Waits for this kind of stop. Signals that come meanwhile go their way. */
static void await_stop(pid_t pid, int wanted) {
    int status = 0;
    for (unsigned tries = 0; tries < STOPS_MAX; tries++) {
        pid_t found = waitpid(pid, &status, __WALL);
        if (found < 0 && errno == EINTR) continue;
        if (found != pid || !WIFSTOPPED(status)) break;
        if (status >> 8 == wanted) return;
        const int signal = status >> 16 == 0 ? WSTOPSIG(status) : 0;
        must(ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(intptr_t)signal) == 0, "go on");
    }
    fault(E_CLONE_FAILED, "filter: the workload does not stop (0x%x)", (unsigned)status);
}

/* Below the stack and what belongs to it: nobody's memory until the thread goes on. */
static uint64_t place(pid_t pid, uint64_t stack, struct field filter) {
    struct program_header header = {.length = (uint16_t)(filter.length / INSTRUCTION_BYTES)};
    uint64_t at = (stack - RED_ZONE_BYTES - filter.length - sizeof header) & ~(uint64_t)15;
    header.address = at + sizeof header;
    const struct iovec ours[2] = {{&header, sizeof header}, {(void *)(uintptr_t)filter.value, filter.length}};
    const struct iovec theirs = {(void *)(uintptr_t)at, sizeof header + filter.length};
    ssize_t size = (ssize_t)theirs.iov_len;
    must(syscall(SYS_process_vm_writev, pid, ours, 2, &theirs, 1, 0) == size, "memory");
    return at;
}

static void read_back(pid_t pid) {
    uint8_t bytes[SHA256_BYTES];
    /* They are numbered from the oldest. */
    long count = ptrace(GET_FILTER, pid, (void *)1, given_back);
    must(count > 0 && count <= INSTRUCTIONS_MAX, "read back");
    sha256(given_back, (size_t)count * INSTRUCTION_BYTES, bytes);
    for (int i = 0; i < SHA256_BYTES; i++) snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
}

const char *install_first_filter(void) {
    static const struct instruction program[] = {
        {0x20, 0, 0, 0}, /* the call's number */
        {0x15, 0, 1, SYS_io_uring_setup},
        {0x06, 0, 0, 0x00050000 | ENOSYS},
        {0x06, 0, 0, 0x7fff0000}, /* allow */
    };
    const struct program_header header = {sizeof program / sizeof *program, (uint64_t)(uintptr_t)program};
    return syscall(SYS_seccomp, SET_MODE_FILTER, 0, &header) == 0 ? NULL : "first filter";
}

void install_filter(pid_t pid, struct field filter) {
    struct user_regs_struct before, now;
    if (filter.length == 0 || filter.length % INSTRUCTION_BYTES != 0) fault(E_CLONE_FAILED, "filter: no program");
    must(ptrace(PTRACE_SEIZE, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) == 0, "seize");
    must(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0, "interrupt");
    await_stop(pid, STOPPED_AS_ASKED);
    /* A thread that waited in a call makes it again; one that was on its way makes its next one. */
    must(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0, "go on");
    await_stop(pid, STOPPED_AT_CALL);
    must(ptrace(PTRACE_GETREGS, pid, NULL, &before) == 0, "registers");
    now = before;
    now.orig_rax = SYS_seccomp;
    now.rdi = SET_MODE_FILTER;
    now.rsi = FILTER_TSYNC;
    now.rdx = place(pid, before.rsp, filter);
    must(ptrace(PTRACE_SETREGS, pid, NULL, &now) == 0, "registers");
    must(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0, "go on");
    await_stop(pid, STOPPED_AT_CALL);
    must(ptrace(PTRACE_GETREGS, pid, NULL, &now) == 0, "registers");
    errno = -(int)now.rax;
    must(now.rax == 0, "seccomp");
    /* Back before the two bytes of the instruction that made the call. */
    before.rax = before.orig_rax;
    before.rip -= 2;
    before.orig_rax = (unsigned long)-1;
    must(ptrace(PTRACE_SETREGS, pid, NULL, &before) == 0, "registers");
    read_back(pid);
    must(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0, "detach");
}

const char *installed_filter(void) {
    return digest;
}
