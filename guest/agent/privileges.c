/*
 * Giving up every privilege, for ever: no capability in any set, none to be had by executing a file, no way back to
 * root, and nothing inherited that belongs to the agent. The order matters: each step needs a privilege that a later
 * one drops.
 */
#include "agent.h"

#include <grp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/capability.h and linux/securebits.h, which musl-gcc does not find. */
enum { CAPABILITY_VERSION_3 = 0x20080522, CAPABILITIES_MAX = 64 };
enum {
    NOROOT = 1 << 0,
    NO_SETUID_FIXUP = 1 << 2,
    KEEP_CAPS_LOCKED = 1 << 5,
    NO_CAP_AMBIENT_RAISE = 1 << 6,
};

struct capability_header {
    uint32_t version;
    int pid;
};

struct capability_sets {
    uint32_t effective, permitted, inheritable;
};

/* The kernel has fewer capabilities than this and refuses the first one that it does not know. */
static bool empty_bounding_set(void) {
    for (int capability = 0; capability < CAPABILITIES_MAX; capability++) {
        if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) < 0) return capability > 0;
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return false;
    }
    return true;
}

const char *drop_privileges(uid_t uid, gid_t gid) {
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    const struct capability_sets none[2] = {{0, 0, 0}, {0, 0, 0}};
    /* Each bit with its lock, which is the bit above it. */
    const unsigned long bits = 3 * NOROOT | 3 * NO_SETUID_FIXUP | KEEP_CAPS_LOCKED | 3 * NO_CAP_AMBIENT_RAISE;

    if (!empty_bounding_set()) return "bounding set";
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) != 0) return "securebits";
    if (setgroups(0, NULL) != 0) return "groups";
    if (setresgid(gid, gid, gid) != 0) return "gid";
    if (setresuid(uid, uid, uid) != 0) return "uid";
    if (syscall(SYS_capset, &header, none) != 0) return "capabilities";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "no_new_privs";
    if (setresuid(0, 0, 0) == 0) return "root can be had again";
    return NULL;
}
