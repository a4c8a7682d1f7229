/*
 * The workload's share of the machine: one cgroup, made in the template and given its limits in the clone. The agent
 * stays outside of it, so that no limit of the workload can stop the agent.
 */
#include "agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the group had used before the event: a warm runtime has worked in it. */
static struct usage before;

static void set(const char *name, const char *value) {
    char path[96];
    snprintf(path, sizeof path, CGROUP_PATH "/%s", name);
    if (!write_text(path, value)) fault(E_CLONE_FAILED, "%s = %s: %s", name, value, strerror(errno));
}

static void make_group(void) {
    if (mkdir(CGROUP_PATH, 0755) != 0) fault(E_CLONE_FAILED, "cgroup: %s", strerror(errno));
    set("memory.swap.max", "0");
    /* Out of memory ends the whole workload: half of it would only fail in stranger ways. */
    set("memory.oom.group", "1");
}

void make_cgroup(void) {
    if (!write_text("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids")) {
        fault(E_TEMPLATE_BUILD, "cgroup controllers: %s", strerror(errno));
    }
    make_group();
    if (mkdir(WARM_UP_PATH, 0755) != 0) fault(E_TEMPLATE_BUILD, "cgroup: %s", strerror(errno));
}

/*
 * Memory stays charged to the group in which it was touched first. So the runtime's own code and heap are no part of
 * the function's limit, and the function's limit cannot throw the runtime's code out of the page cache: without this a
 * workload at its limit read its own program back from disk for ever (30 s and more, measured) instead of being killed.
 */
void move_runtime(void) {
    char pids[4096];
    if (read_text(WARM_UP_PATH "/cgroup.procs", pids, sizeof pids) < 0) {
        fault(E_TEMPLATE_BUILD, "cgroup of the runtime: %s", strerror(errno));
    }
    char *rest = pids;
    for (char *pid = strtok_r(pids, "\n", &rest); pid != NULL; pid = strtok_r(NULL, "\n", &rest)) {
        if (!write_text(CGROUP_PATH "/cgroup.procs", pid)) fault(E_TEMPLATE_BUILD, "move %s: %s", pid, strerror(errno));
    }
}

/* A process that was reaped may still count for a moment. */
void renew_cgroup(void) {
    unsigned tries = 0;
    while (rmdir(CGROUP_PATH) != 0) {
        if (errno != EBUSY || tries++ == KILL_SECONDS_MAX * 1000) {
            fault(E_CLONE_FAILED, "used cgroup: %s", strerror(errno));
        }
        usleep(1000);
    }
    make_group();
}

void limit_cgroup(const struct resources *resources) {
    char text[64];
    snprintf(text, sizeof text, "%" PRIu64, resources->memory_bytes);
    set("memory.max", text);
    snprintf(text, sizeof text, "%" PRIu64, resources->pids);
    set("pids.max", text);
    snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64, resources->cpu_quota_micros, resources->cpu_period_micros);
    set("cpu.max", text);
    before = read_usage();
}

static uint64_t read_number(const char *name, const char *key) {
    char path[96], text[2048];
    snprintf(path, sizeof path, CGROUP_PATH "/%s", name);
    if (read_text(path, text, sizeof text) < 0) fault(E_CLONE_FAILED, "%s: %s", name, strerror(errno));
    if (key != NULL) return number_after(text, key);
    uint64_t number = 0;
    return sscanf(text, "%" SCNu64, &number) == 1 ? number : 0;
}

struct usage read_usage(void) {
    return (struct usage){
        .cpu_micros = read_number("cpu.stat", "usage_usec") - before.cpu_micros,
        .memory_peak_bytes = read_number("memory.peak", NULL),
        .oom_kills = read_number("memory.events", "oom_kill") - before.oom_kills,
        .pids_max_hits = read_number("pids.events", "max") - before.pids_max_hits,
    };
}

void kill_cgroup(void) {
    set("cgroup.kill", "1");
}
