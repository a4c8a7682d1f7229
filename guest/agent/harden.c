/*
 * Settings of the kernel that make it a smaller target for the workload. The workload cannot change them: its /proc is
 * read-only and it has no capability.
 */
#include "agent.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct setting {
    const char *path;
    const char *value;
    /* Exists only in some kernels; where it does not, another setting or the missing capabilities do the same. */
    bool optional;
};

static const struct setting settings[] = {
    {"/proc/sys/kernel/modules_disabled", "1", false},
    {"/proc/sys/kernel/dmesg_restrict", "1", false},
    {"/proc/sys/kernel/kptr_restrict", "2", false},
    {"/proc/sys/kernel/perf_event_paranoid", "3", true},
    {"/proc/sys/kernel/unprivileged_bpf_disabled", "1", true},
    {"/proc/sys/kernel/unprivileged_userns_clone", "0", true}, /* Debian's own */
    {"/proc/sys/user/max_user_namespaces", "0", false},
    {"/proc/sys/kernel/kexec_load_disabled", "1", true},
    {"/proc/sys/kernel/sysrq", "0", true},
    {"/proc/sys/kernel/yama/ptrace_scope", "1", true},
    {"/proc/sys/vm/unprivileged_userfaultfd", "0", true},
    {"/proc/sys/dev/tty/ldisc_autoload", "0", true},
    {"/proc/sys/fs/protected_symlinks", "1", false},
    {"/proc/sys/fs/protected_hardlinks", "1", false},
    {"/proc/sys/fs/suid_dumpable", "0", false},
    {"/proc/sys/kernel/core_pattern", "/dev/null", false}, /* and RLIMIT_CORE is 0 */
    /* The console is a slow serial line: a workload that provokes warnings must not be able to hold up the machine. */
    {"/proc/sys/kernel/printk", "1 4 1 1", false},
};

/* Without it, a program that talks to itself over 127.0.0.1 would fail. There is no other interface. */
static void raise_loopback(void) {
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &request) != 0) fault(E_TEMPLATE_BUILD, "loopback: %s", strerror(errno));
    close(any);
}

void harden_kernel(void) {
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *setting = &settings[i];
        if (write_text(setting->path, setting->value)) continue;
        if (errno == ENOENT && setting->optional) continue;
        fault(E_TEMPLATE_BUILD, "%s: %s", setting->path, strerror(errno));
    }
    raise_loopback();
}
