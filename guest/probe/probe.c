/*
 * The conformance probe of `mayfly image check`: shipped into a clone of the image that is examined, where it tries
 * what a function may do and what none may. Static: it needs nothing of the image, so it runs also without a libc.
 *
 *   probe facts TOKEN [PROGRAM…]   one JSON text; TOKEN must be in the event, each PROGRAM must be able to start
 *   probe paths                    one JSON text: where each path of /function/paths leads in this image
 *   probe memory                   takes memory until it is killed
 *   probe spin                     never ends
 *
 * It only reports; the host knows what is right (src/image/conform.ts).
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum { TEXT_BYTES = 4096, EVENT_BYTES = 64 * 1024, TRIES_MAX = 4096, BLOCK = 64 * 1024, BLOCKS_MAX = 2048 };

void json_text(const char *text) {
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') printf("\\%c", *at);
        else if (*at < 0x20 || *at > 0x7e) printf("\\u%04x", *at);
        else putchar(*at);
    }
    putchar('"');
}

static bool first = true;

static void told(const char *name, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void told(const char *name, bool ok, const char *format, ...) {
    char detail[TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    printf("%s{\"name\":", first ? "" : ",");
    json_text(name);
    printf(",\"ok\":%s,\"detail\":", ok ? "true" : "false");
    json_text(detail);
    putchar('}');
    first = false;
}

/* A file's first line; empty when there is none. */
static void read_line(const char *path, char *text, size_t room) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? 0 : read(file, text, room - 1);
    if (file >= 0) close(file);
    text[got < 0 ? 0 : got] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

/* ---- what makes a clone one of its own --------------------------------------------------------------------------- */

static void fact(const char *name, const char *value) {
    printf("\"%s\":", name);
    json_text(value);
    putchar(',');
}

static void tell_identity(void) {
    unsigned char random[16];
    char text[TEXT_BYTES] = "", *at = text;
    struct timespec now;
    if (getrandom(random, sizeof random, 0) == sizeof random) {
        for (size_t i = 0; i < sizeof random; i++) at += sprintf(at, "%02x", random[i]);
    }
    fact("random", text);
    read_line("/etc/machine-id", text, sizeof text);
    fact("machineId", text);
    read_line("/proc/sys/kernel/random/boot_id", text, sizeof text);
    fact("bootId", text);
    if (gethostname(text, sizeof text) != 0) text[0] = '\0';
    fact("hostname", text);
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof text, "%lld%09ld", (long long)now.tv_sec, now.tv_nsec);
    fact("clockNanos", text);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void tell_limit(const char *name, unsigned long reached, int error) {
    printf("\"%s\":{\"reached\":%lu,\"error\":", name, reached);
    json_text(error == 0 ? "" : strerror(error));
    printf("},");
}

static void try_files(void) {
    static int files[TRIES_MAX];
    unsigned count = 0;
    while (count < TRIES_MAX && (files[count] = open("/dev/null", O_RDONLY)) >= 0) count++;
    int error = count < TRIES_MAX ? errno : 0;
    /* Numbers, not files: the standard streams are open as well. */
    unsigned long highest = count == 0 ? 0 : (unsigned long)files[count - 1] + 1;
    for (unsigned i = 0; i < count; i++) close(files[i]);
    tell_limit("files", highest, error);
}

static void try_processes(void) {
    static pid_t children[TRIES_MAX];
    unsigned count = 0;
    int error = 0;
    fflush(stdout);
    while (count < TRIES_MAX) {
        children[count] = fork();
        if (children[count] == 0) for (;;) pause();
        if (children[count] < 0) {
            error = errno;
            break;
        }
        count++;
    }
    for (unsigned i = 0; i < count; i++) kill(children[i], SIGKILL);
    for (unsigned i = 0; i < count; i++) waitpid(children[i], NULL, 0);
    tell_limit("processes", count + 1ul, error);
}

static void try_scratch(void) {
    static char block[BLOCK];
    unsigned long bytes = 0;
    int error = 0;
    int file = open("/tmp/fill", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) error = errno;
    for (unsigned i = 0; file >= 0 && i < BLOCKS_MAX; i++) {
        ssize_t written = write(file, block, sizeof block);
        if (written < 0) {
            error = errno;
            break;
        }
        bytes += (unsigned long)written;
    }
    if (file >= 0) close(file);
    unlink("/tmp/fill");
    tell_limit("scratch", bytes, error);
}

/* ---- what is allowed, and what is not ---------------------------------------------------------------------------- */

static bool can_write(const char *folder) {
    char path[256], back[8] = "";
    snprintf(path, sizeof path, "%s/.mayfly-probe", folder);
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) return false;
    bool same = write(file, "probe", 5) == 5 && pread(file, back, 5, 0) == 5 && strcmp(back, "probe") == 0;
    int error = errno;
    close(file);
    unlink(path);
    errno = error;
    return same;
}

static void try_writing(void) {
    static const char *const allowed[] = {"/tmp", "/dev/shm"};
    static const char *const refused[] = {"/", "/etc", "/usr", "/function", "/dev", "/proc/sys/kernel"};
    char name[64];
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        snprintf(name, sizeof name, "write %s", allowed[i]);
        bool ok = can_write(allowed[i]);
        told(name, ok, "%s", ok ? "written and read back" : strerror(errno));
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(name, sizeof name, "no write %s", refused[i]);
        bool wrote = can_write(refused[i]);
        told(name, !wrote, "%s", wrote ? "a file could be made" : strerror(errno));
    }
}

static bool root(void) { return setgid(0) == 0 || setuid(0) == 0; }
static bool mounts(void) { return mount("none", "/tmp", "tmpfs", 0, "") == 0; }
static bool changes_root(void) { return chroot("/tmp") == 0; }
static bool makes_device(void) { return mknod("/tmp/.device", S_IFBLK | 0600, makedev(254, 0)) == 0; }
static bool sees_disk(void) { return access("/dev/vda", F_OK) == 0; }

/* In a process of its own: a filter of system calls ends whoever tries. */
static void must_fail(const char *name, bool (*try)(void), const char *what) {
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) _exit(try() ? 0 : errno);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) told(name, false, "%s: could not be tried", what);
    else if (WIFSIGNALED(status)) told(name, true, "%s: ended by signal %d", what, WTERMSIG(status));
    else if (WEXITSTATUS(status) == 0) told(name, false, "%s: it was possible", what);
    else told(name, true, "%s: %s", what, strerror(WEXITSTATUS(status)));
}

static void try_privileges(void) {
    char status[TEXT_BYTES] = "";
    told("user", getuid() == geteuid() && getuid() != 0 && getgid() != 0 && getgroups(0, NULL) == 0, "uid %u, gid %u",
         (unsigned)getuid(), (unsigned)getgid());
    must_fail("no root", root, "setuid");
    must_fail("no mount", mounts, "mount");
    must_fail("no chroot", changes_root, "chroot");
    must_fail("no device", makes_device, "mknod");
    must_fail("no disk", sees_disk, "/dev/vda");
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, status, sizeof status - 1);
    if (file >= 0) close(file);
    if (got > 0) status[got] = '\0';
    bool none = strstr(status, "CapEff:\t0000000000000000") != NULL && strstr(status, "NoNewPrivs:\t1") != NULL;
    told("no privileges", none, "%s", none ? "no capabilities, no_new_privs" : "something is left");
}

static void try_devices(void) {
    char byte = 0;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    told("devices", write(null, &byte, 1) == 1 && read(random, &byte, 1) == 1, "/dev/null, /dev/urandom");
    close(null);
    close(random);
}

/* Nothing is allowed to this profile: the broker has to say no at once, not to leave it waiting. */
static void try_network(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    int socket_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
    int error = connect(socket_, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        struct pollfd wanted = {.fd = socket_, .events = POLLOUT};
        socklen_t length = sizeof error;
        if (poll(&wanted, 1, 5000) <= 0) error = ETIMEDOUT;
        else if (getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    }
    told("no network", error == ECONNREFUSED, "connect: %s", strerror(error));
    close(socket_);
}

static void try_event(const char *token) {
    static char event[EVENT_BYTES];
    size_t used = 0;
    ssize_t got;
    while (used < sizeof event - 1 && (got = read(0, event + used, sizeof event - 1 - used)) > 0) used += (size_t)got;
    event[used] = '\0';
    told("event", strstr(event, token) != NULL, "%zu bytes", used);
}

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static const char *machine_name(unsigned machine) {
    switch (machine) {
    case EM_X86_64: return "x86-64";
    case EM_386: return "32-bit x86";
    case EM_AARCH64: return "AArch64";
    case EM_ARM: return "32-bit ARM";
    case EM_RISCV: return "RISC-V";
    default: return "another processor";
    }
}

/* Why a program could not be started; empty when it could. */
static void why_not(const char *path, char *reason, size_t room, unsigned depth) {
    static char head[64 * 1024];
    struct stat found;
    reason[0] = '\0';
    if (stat(path, &found) != 0) {
        snprintf(reason, room, "%.200s: %s", path, strerror(errno));
        return;
    }
    if (!S_ISREG(found.st_mode) || access(path, X_OK) != 0) {
        snprintf(reason, room, "%.200s cannot be executed", path);
        return;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, head, sizeof head - 1);
    if (file >= 0) close(file);
    if (got < 0) return; /* executable and not readable: the kernel will do */
    head[got] = '\0';
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)(const void *)head;
    if (got >= 2 && head[0] == '#' && head[1] == '!') {
        char next[256] = "";
        if (depth == 0 || sscanf(head + 2, " %255s", next) != 1) snprintf(reason, room, "%.200s: no interpreter", path);
        else why_not(next, reason, room, depth - 1);
        return;
    }
    if (got < (ssize_t)sizeof *header || memcmp(head, ELFMAG, SELFMAG) != 0) {
        snprintf(reason, room, "%.200s is neither ELF nor a script", path);
        return;
    }
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64) {
        snprintf(reason, room, "%.200s is for %s", path, machine_name(header->e_machine));
        return;
    }
    for (unsigned i = 0; i < header->e_phnum && i < 64; i++) {
        size_t at = header->e_phoff + (size_t)i * header->e_phentsize;
        if (header->e_phoff > sizeof head || at + sizeof(Elf64_Phdr) > (size_t)got) return;
        const Elf64_Phdr *part = (const Elf64_Phdr *)(const void *)(head + at);
        if (part->p_type != PT_INTERP) continue;
        if (part->p_offset >= (size_t)got) return;
        if (access(head + part->p_offset, X_OK) != 0) {
            snprintf(reason, room, "%.200s needs %.200s, which is missing", path, head + part->p_offset);
        }
        return;
    }
}

static void try_program(const char *path) {
    char name[512], reason[512];
    snprintf(name, sizeof name, "program %.400s", path);
    why_not(path, reason, sizeof reason, 4);
    told(name, reason[0] == '\0', "%s", reason[0] == '\0' ? "can be started" : reason);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void facts(char **programs, const char *token) {
    putchar('{');
    tell_identity();
    try_files();
    try_processes();
    try_scratch();
    printf("\"checks\":[");
    try_event(token);
    try_privileges();
    try_writing();
    try_devices();
    try_network();
    for (; *programs != NULL; programs++) try_program(*programs);
    printf("]}");
    fprintf(stderr, "%s\n", token);
}

static void take_memory(void) {
    enum { STEP = 1024 * 1024, STEPS_MAX = 16 * 1024 };
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        char *taken = malloc(STEP);
        if (taken != NULL) memset(taken, 1, STEP);
    }
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    if (strcmp(mode, "facts") == 0 && count > 2) facts(arguments + 3, arguments[2]);
    else if (strcmp(mode, "paths") == 0 && freopen("/function/paths", "re", stdin) != NULL) paths(stdin);
    else if (strcmp(mode, "memory") == 0) take_memory();
    else if (strcmp(mode, "spin") == 0) for (volatile unsigned long i = 0;; i++) continue;
    else return 2;
    return fflush(stdout) == 0 ? 0 : 1;
}
