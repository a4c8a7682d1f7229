/*
 * The agent's own view of the machine. The workload gets another one (root.c); nothing of this is visible to it.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void mount_at(const char *type, const char *path, unsigned long flags, const char *options) {
    if (mkdir(path, 0755) != 0 && errno != EEXIST) fault(E_TEMPLATE_BUILD, "mkdir %s: %s", path, strerror(errno));
    if (mount(type, path, type, flags, options) != 0) fault(E_TEMPLATE_BUILD, "mount %s: %s", path, strerror(errno));
}

/* The kernel opens a console for PID 1 only when the initramfs has that device: 0 to 2 must not become the port. */
static void open_standard_streams(void) {
    int null = open("/dev/null", O_RDWR);
    int console = open("/dev/console", O_WRONLY | O_NOCTTY);
    if (null < 0) fault(E_TEMPLATE_BUILD, "/dev/null: %s", strerror(errno));
    dup2(null, 0);
    dup2(console < 0 ? null : console, 1);
    dup2(console < 0 ? null : console, 2);
    if (null > 2) close(null);
    if (console > 2) close(console);
}

void mount_system(void) {
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    umask(022);
    mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755");
    open_standard_streams();
    mount_at("proc", "/proc", quiet, "");
    mount_at("sysfs", "/sys", quiet, "");
    mount_at("cgroup2", "/sys/fs/cgroup", quiet, "");
    mount_at("securityfs", "/sys/kernel/security", quiet, "");
}

/*
 * A namespace can only pivot away from a root that is mounted on something, which the initramfs is not. So the agent
 * moves into an empty tmpfs; it is static and needs none of the files it leaves behind. They would stay in memory in
 * every template: the modules are deleted.
 */
void leave_initramfs(void) {
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    mount_at("tmpfs", "/agent", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=64,mode=0700");
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        char target[32] = "/agent";
        strcat(target, moved[i]);
        if (mkdir(target, 0755) != 0 || mount(moved[i], target, NULL, MS_MOVE, NULL) != 0) {
            fault(E_TEMPLATE_BUILD, "move %s: %s", moved[i], strerror(errno));
        }
    }
    if (chdir("/agent") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0) {
        fault(E_TEMPLATE_BUILD, "leave the initramfs: %s", strerror(errno));
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        fault(E_TEMPLATE_BUILD, "private mounts: %s", strerror(errno));
    }
}
