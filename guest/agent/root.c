/*
 * What the workload sees. One bounded tmpfs holds everything that can be written, so that one size limits it all:
 *
 *   /image, /layer1 to /layer3 (erofs or squashfs, read-only) + /scratch/upper  ->  overlay  ->  /  read-write
 *   /scratch/tmp                                             ->  /tmp       read-write
 *   /scratch/shm                                             ->  /dev/shm   read-write, not executable
 *   /scratch/function                                        ->  /function  read-only
 *   /scratch/boot_id                                         ->  /proc/sys/kernel/random/boot_id  read-only
 *
 * The read-only mounts are read-only for the workload alone: the agent fills them through /scratch, also after the
 * workload's process exists, and nothing has to be remounted in a clone. docs/FORMATS.md lists the mounts as facts.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* ---- in the agent's view ----------------------------------------------------------------------------------------- */

static void make_folder(const char *path, mode_t mode) {
    /* mkdir is subject to the umask, /tmp must not be. */
    if ((mkdir(path, mode) != 0 && errno != EEXIST) || chmod(path, mode) != 0) {
        fault(E_TEMPLATE_BUILD, "mkdir %s: %s", path, strerror(errno));
    }
}

/*
 * Bytes and inodes: each inode costs the kernel about a kilobyte that the size does not count. To tmpfs, a size of 0
 * means no limit.
 */
static void scratch_options(char *options, size_t room, uint64_t bytes) {
    if (bytes == 0) fault(E_CLONE_FAILED, "a scratch of no bytes");
    snprintf(options, room, "mode=0755,size=%" PRIu64 ",nr_inodes=%" PRIu64, bytes, 32768 + bytes / 16384);
}

/* File systems above the base: as many as an image may have (core/limits.ts, imageLayersMax). */
enum { LAYERS_MAX = 3 };

/*
 * Images of set-up are erofs; those that were imported or built are squashfs, which Debian 12 can write from a stream.
 * Every squashfs begins with its magic, where an erofs has room for a boot sector and zeros.
 */
static const char *image_type(const char *path) {
    char magic[4];
    int device = open(path, O_RDONLY | O_CLOEXEC);
    if (device < 0 || read(device, magic, sizeof magic) != sizeof magic) {
        fault(E_TEMPLATE_BUILD, "base image: %s: %s", path, strerror(errno));
    }
    close(device);
    return memcmp(magic, "hsqs", sizeof magic) == 0 ? "squashfs" : "erofs";
}

static void mount_disk(const char *device, const char *folder) {
    make_folder(folder, 0755);
    for (unsigned i = 0; access(device, F_OK) != 0 && i < DEVICE_SECONDS_MAX * 200; i++) usleep(5000);
    if (mount(device, folder, image_type(device), MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) != 0) {
        fault(E_TEMPLATE_BUILD, "base image: %s: %s", device, strerror(errno));
    }
}

/* The machine was made with so many disks; the serial number of each says what it is (machine.ts). */
static unsigned count_layers(void) {
    char line[2048];
    unsigned count = 0;
    if (read_text("/proc/cmdline", line, sizeof line) < 0) fault(E_TEMPLATE_BUILD, "cmdline: %s", strerror(errno));
    const char *found = strstr(line, " mayfly.layers=");
    if (found != NULL && sscanf(found, " mayfly.layers=%u", &count) != 1) fault(E_TEMPLATE_BUILD, "layers: no number");
    if (count > LAYERS_MAX) fault(E_TEMPLATE_BUILD, "%u layers", count);
    return count;
}

/* The last one of /dev/vda to /dev/vdd that has this serial number; the kernel need not name disks in their order. */
static void find_layer(unsigned layer, char *device, size_t room) {
    char path[64], serial[64], wanted[16];
    snprintf(wanted, sizeof wanted, "layer%u", layer);
    for (unsigned tries = 0; tries < DEVICE_SECONDS_MAX * 200; tries++, usleep(5000)) {
        for (char disk = 'b'; disk <= 'd'; disk++) {
            snprintf(path, sizeof path, "/sys/block/vd%c/serial", disk);
            if (read_text(path, serial, sizeof serial) < 0) continue;
            serial[strcspn(serial, "\n")] = '\0';
            if (strcmp(serial, wanted) != 0) continue;
            snprintf(device, room, "/dev/vd%c", disk);
            return;
        }
    }
    fault(E_TEMPLATE_BUILD, "there is no disk %s", wanted);
}

/* `options`: of an overlay, the highest file system first. */
static void mount_images(char *options, size_t room) {
    char device[16], folder[24], below[128] = "", rest[96];
    unsigned layers = count_layers();
    mount_disk("/dev/vda", IMAGE_PATH);
    for (unsigned layer = 1; layer <= layers; layer++) {
        find_layer(layer, device, sizeof device);
        snprintf(folder, sizeof folder, "/layer%u", layer);
        mount_disk(device, folder);
        snprintf(rest, sizeof rest, "%.90s", below);
        snprintf(below, sizeof below, "%s:%s", folder, rest);
    }
    snprintf(options, room, "lowerdir=%s" IMAGE_PATH ",upperdir=" SCRATCH_PATH "/upper,workdir=" SCRATCH_PATH "/work",
             below);
}

void make_root(uint64_t bytes) {
    char options[128], overlay[256];
    mount_images(overlay, sizeof overlay);
    make_folder(SCRATCH_PATH, 0755);
    make_folder(ROOT_PATH, 0755);
    scratch_options(options, sizeof options, bytes);
    if (mount("scratch", SCRATCH_PATH, "tmpfs", MS_NOSUID | MS_NODEV, options) != 0) {
        fault(E_TEMPLATE_BUILD, "scratch of %" PRIu64 " bytes: %s", bytes, strerror(errno));
    }
    make_folder(SCRATCH_PATH "/upper", 0755);
    make_folder(SCRATCH_PATH "/work", 0755);
    make_folder(SCRATCH_PATH "/function", 0755);
    make_folder(SCRATCH_PATH "/tmp", 01777);
    make_folder(SCRATCH_PATH "/shm", 01777);
    if (!make_text(BOOT_ID_PATH, "", 0444)) fault(E_TEMPLATE_BUILD, "boot id: %s", strerror(errno));

    if (mount("overlay", ROOT_PATH, "overlay", MS_NOSUID | MS_NODEV, overlay) != 0) {
        fault(E_TEMPLATE_BUILD, "overlay: %s", strerror(errno));
    }
    static const char *const folders[] = {"/dev", "/etc", "/function", "/proc"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[32] = ROOT_PATH;
        make_folder(strcat(path, folders[i]), 0755);
    }
    make_folder(ROOT_PATH "/tmp", 01777);
    /* The first write to a file of the image copies it up: better here than in every clone. */
    static const char *const names[] = {"/etc/hostname", "/etc/hosts", "/etc/machine-id"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[32] = ROOT_PATH;
        if (!make_text(strcat(path, names[i]), "", 0444)) fault(E_TEMPLATE_BUILD, "%s: %s", path, strerror(errno));
    }
}

void resize_scratch(uint64_t bytes) {
    char options[128];
    scratch_options(options, sizeof options, bytes);
    if (mount(NULL, SCRATCH_PATH, NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV, options) != 0) {
        fault(E_CLONE_FAILED, "scratch of %" PRIu64 " bytes: %s", bytes, strerror(errno));
    }
}

uint64_t scratch_bytes(void) {
    struct statfs found;
    if (statfs(SCRATCH_PATH, &found) != 0) fault(E_CLONE_FAILED, "scratch: %s", strerror(errno));
    return (uint64_t)found.f_blocks * (uint64_t)found.f_bsize;
}

/* ---- in the workload's namespaces -------------------------------------------------------------------------------- */

static bool bind(const char *from, const char *to, unsigned long flags) {
    if (mount(from, to, NULL, MS_BIND, NULL) != 0) return false;
    return mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | flags, NULL) == 0;
}

struct device {
    const char *path;
    unsigned minor;
    unsigned major;
};

static bool make_devices(void) {
    static const struct device devices[] = {
        {ROOT_PATH "/dev/null", 3, 1},   {ROOT_PATH "/dev/zero", 5, 1},    {ROOT_PATH "/dev/full", 7, 1},
        {ROOT_PATH "/dev/random", 8, 1}, {ROOT_PATH "/dev/urandom", 9, 1}, {ROOT_PATH "/dev/tty", 0, 5},
    };
    const char *options = "mode=0755,size=64k,nr_inodes=32";
    if (mount("dev", ROOT_PATH "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, options) != 0) return false;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        const struct device *device = &devices[i];
        if (mknod(device->path, S_IFCHR | 0666, makedev(device->major, device->minor)) != 0) return false;
        if (chmod(device->path, 0666) != 0) return false;
    }
    return symlink("/proc/self/fd", ROOT_PATH "/dev/fd") == 0 &&
           symlink("/proc/self/fd/0", ROOT_PATH "/dev/stdin") == 0 &&
           symlink("/proc/self/fd/1", ROOT_PATH "/dev/stdout") == 0 &&
           symlink("/proc/self/fd/2", ROOT_PATH "/dev/stderr") == 0 && mkdir(ROOT_PATH "/dev/shm", 01777) == 0 &&
           mount(NULL, ROOT_PATH "/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) == 0 &&
           bind(SCRATCH_PATH "/shm", ROOT_PATH "/dev/shm", MS_NODEV | MS_NOEXEC);
}

static bool mount_proc(void) {
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
    return mount("proc", ROOT_PATH "/proc", "proc", flags, NULL) == 0 &&
           bind(BOOT_ID_PATH, ROOT_PATH "/proc/sys/kernel/random/boot_id", MS_NODEV | MS_NOEXEC | MS_RDONLY) &&
           bind(ROOT_PATH "/dev/null", ROOT_PATH "/proc/kcore", MS_NOEXEC | MS_RDONLY);
}

const char *enter_root(void) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return "private mounts";
    if (!make_devices()) return "/dev";
    if (!mount_proc()) return "/proc";
    if (!bind(SCRATCH_PATH "/tmp", ROOT_PATH "/tmp", MS_NODEV)) return "/tmp";
    if (!bind(SCRATCH_PATH "/function", ROOT_PATH "/function", MS_NODEV | MS_RDONLY)) return "/function";
    /* The old root ends up on top of the new one and is taken off with all that is mounted in it. */
    if (chdir(ROOT_PATH) != 0 || syscall(SYS_pivot_root, ".", ".") != 0) return "pivot_root";
    if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return "old root";
    return NULL;
}
