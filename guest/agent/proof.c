/*
 * What is in force for the workload, as the kernel tells it: read from the workload's own process, never from what the
 * agent believes to have set. A value that differs between two threads is reported as differing, so it equals nothing
 * that the host could expect.
 */
#include "agent.h"
#include "net.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 16 * 1024, FACT_BYTES = 512, THREADS_MAX = 4096 };

static char text[TEXT_BYTES];
static struct writer *facts;

static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void add(const char *format, ...) {
    char fact[FACT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(fact, sizeof fact, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= (int)sizeof fact) fault(E_CLONE_FAILED, "a fact is too long");
    write_text_field(facts, 1, fact);
}

static void load(pid_t pid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    ssize_t length = read_text(path, text, sizeof text);
    if (length < 0) fault(E_CLONE_FAILED, "%s: %s", path, strerror(errno));
    if (length == sizeof text - 1) fault(E_CLONE_FAILED, "%s is too long", path);
}

/* ---- every thread's status --------------------------------------------------------------------------------------- */

struct credential {
    const char *line; /* in /proc/PID/status */
    const char *fact;
};

static const struct credential credentials[] = {
    {"Uid", "uid"},
    {"Gid", "gid"},
    {"Groups", "groups"},
    {"NoNewPrivs", "no_new_privs"},
    {"Seccomp", "seccomp"},
    {"Seccomp_filters", "seccomp.filters"},
    {"CapInh", "cap.inheritable"},
    {"CapPrm", "cap.permitted"},
    {"CapEff", "cap.effective"},
    {"CapBnd", "cap.bounding"},
    {"CapAmb", "cap.ambient"},
};

enum { CREDENTIALS = sizeof credentials / sizeof *credentials, VALUE_BYTES = 256 };

static char values[CREDENTIALS][VALUE_BYTES];

/* One line's words, comma separated; of ids that are all equal, one. */
static void read_value(const char *line, char *value) {
    const char *found = value_after(text, line);
    if (found == NULL) fault(E_CLONE_FAILED, "status has no %s", line);
    size_t length = strcspn(found, "\n");
    while (length > 0 && (found[length - 1] == ' ' || found[length - 1] == '\t')) length--;
    if (length >= VALUE_BYTES) fault(E_CLONE_FAILED, "%s is too long", line);
    memcpy(value, found, length);
    value[length] = '\0';
    for (char *at = value; *at != '\0'; at++) {
        if (*at == ' ' || *at == '\t') *at = ',';
    }
    if (strcmp(line, "Uid") != 0 && strcmp(line, "Gid") != 0) return;
    size_t first = strcspn(value, ",");
    char one[VALUE_BYTES], all[VALUE_BYTES];
    snprintf(one, sizeof one, "%.*s", (int)first, value);
    snprintf(all, sizeof all, "%.40s,%.40s,%.40s,%.40s", one, one, one, one);
    if (strcmp(value, all) == 0) value[first] = '\0';
}

static char label[VALUE_BYTES];

/* "mayfly (enforce)" */
static void read_label(pid_t pid, const char *task, bool first) {
    char path[80];
    snprintf(path, sizeof path, "task/%.20s/attr/apparmor/current", task);
    load(pid, path);
    text[strcspn(text, "\n")] = '\0';
    if (strlen(text) >= sizeof label) fault(E_CLONE_FAILED, "a label is too long");
    if (first) strcpy(label, text);
    else if (strcmp(label, text) != 0) strcpy(label, "differs between threads");
}

static void read_credentials(bool first) {
    char value[VALUE_BYTES];
    for (size_t i = 0; i < CREDENTIALS; i++) {
        read_value(credentials[i].line, value);
        if (first) strcpy(values[i], value);
        else if (strcmp(values[i], value) != 0) strcpy(values[i], "differs between threads");
    }
}

static void add_credentials(pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL) fault(E_CLONE_FAILED, "%s: %s", path, strerror(errno));
    unsigned count = 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] == '.') continue;
        if (count == THREADS_MAX) fault(E_CLONE_FAILED, "more than %u threads before the event", count);
        snprintf(path, sizeof path, "task/%.20s/status", task->d_name);
        load(pid, path);
        read_credentials(count == 0);
        read_label(pid, task->d_name, count++ == 0);
    }
    closedir(tasks);
    if (count == 0) fault(E_CLONE_FAILED, "the workload has no thread");
    for (size_t i = 0; i < CREDENTIALS; i++) add("%s=%s", credentials[i].fact, values[i]);
    add("seccomp.digest=sha256:%s", installed_filter());
    add("apparmor.label=%s", label);
    add("apparmor.policy=%s", loaded_policy());
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void add_cgroup_value(const char *name) {
    char path[96];
    snprintf(path, sizeof path, CGROUP_PATH "/%s", name);
    if (read_text(path, text, sizeof text) < 0) fault(E_CLONE_FAILED, "%s: %s", path, strerror(errno));
    text[strcspn(text, "\n")] = '\0';
    add("cgroup.%s=%.200s", name, text);
}

/*
 * Threads cannot leave their process's cgroup and processes are born into their parent's. So it is enough that the
 * group holds this one process and the process says the same.
 */
static void add_membership(pid_t pid) {
    char only[32];
    if (read_text(CGROUP_PATH "/cgroup.procs", text, sizeof text) < 0) {
        fault(E_CLONE_FAILED, "cgroup.procs: %s", strerror(errno));
    }
    snprintf(only, sizeof only, "%d\n", pid);
    bool member = strcmp(text, only) == 0;
    load(pid, "cgroup");
    add("cgroup.member=%d", member && strcmp(text, "0::/workload\n") == 0);
}

static void add_rlimit(const char *line, const char *fact) {
    char soft[32], hard[32];
    const char *found = value_after(text, line);
    if (found == NULL || sscanf(found, "%31s %31s", soft, hard) != 2) fault(E_CLONE_FAILED, "limits has no %s", line);
    add("rlimit.%s=%s %s", fact, soft, hard);
}

/* ---- mounts and namespaces --------------------------------------------------------------------------------------- */

static bool has_option(const char *options, const char *wanted) {
    size_t length = strlen(wanted);
    for (const char *at = options; at != NULL; at = strchr(at, ',')) {
        if (*at == ',') at++;
        if (strncmp(at, wanted, length) == 0 && (at[length] == ',' || at[length] == '\0')) return true;
    }
    return false;
}

/* "36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue" */
static void add_mount(char *line) {
    char point[256], options[256], type[64], super[256];
    char *second = strstr(line, " - ");
    if (second == NULL || sscanf(line, "%*s %*s %*s %*s %255s %255s", point, options) != 2 ||
        sscanf(second, " - %63s %*s %255s", type, super) != 2) {
        fault(E_CLONE_FAILED, "a line of mountinfo has another form");
    }
    /* How access times are kept is left out: it protects nothing. */
    bool read_only = has_option(options, "ro") || has_option(super, "ro");
    add("mount.%s=%s %s%s%s%s%s", point, type, has_option(options, "nodev") ? "nodev," : "",
        has_option(options, "noexec") ? "noexec," : "", has_option(options, "nosuid") ? "nosuid," : "",
        has_option(options, "nosymfollow") ? "nosymfollow," : "", read_only ? "ro" : "rw");
}

static void add_mounts(pid_t pid) {
    load(pid, "mountinfo");
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (*line != '\0') add_mount(line);
    }
}

static void add_interfaces(pid_t pid) {
    char list[256] = "";
    load(pid, "net/dev");
    char *rest = text;
    for (unsigned number = 0; rest != NULL; number++) {
        char *line = strsep(&rest, "\n");
        char *colon = strchr(line, ':');
        if (number < 2 || colon == NULL) continue; /* two lines of headings */
        *colon = '\0';
        line += strspn(line, " ");
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? "," : "", line);
    }
    add("net.interfaces=%s", list);
}

static void add_namespace(pid_t pid, const char *link, const char *fact) {
    char path[64], ours[64] = "", theirs[64] = "";
    snprintf(path, sizeof path, "/proc/self/ns/%s", link);
    bool known = readlink(path, ours, sizeof ours - 1) > 0;
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, link);
    known = readlink(path, theirs, sizeof theirs - 1) > 0 && known;
    add("%s.namespace=%s", fact, !known ? "unknown" : strcmp(ours, theirs) != 0 ? "private" : "shared");
}

static void add_network_fact(const char *name, const char *value) {
    add("%.80s=%.300s", name, value);
}

void write_proof(const struct workload *workload, struct writer *proof) {
    static const char *const cgroup_values[] = {"memory.max", "memory.swap.max", "pids.max", "cpu.max"};
    pid_t pid = workload->pid;
    facts = proof;
    write_message(facts);
    add_credentials(pid);
    for (size_t i = 0; i < sizeof cgroup_values / sizeof *cgroup_values; i++) add_cgroup_value(cgroup_values[i]);
    add_membership(pid);
    load(pid, "limits");
    add_rlimit("Max open files", "nofile");
    add_rlimit("Max core file size", "core");
    add_mounts(pid);
    add("scratch.bytes=%" PRIu64, scratch_bytes());
    add_interfaces(pid);
    write_network_facts(add_network_fact);
    add_namespace(pid, "net", "net");
    add_namespace(pid, "pid", "pid");
    add_namespace(pid, "mnt", "mount");
}
