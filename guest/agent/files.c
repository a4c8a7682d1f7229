/*
 * The function's files, unpacked below /function before the workload may run. Paths come from outside: they are
 * resolved by the kernel with the promise that nothing leaves the folder and no link is followed on the way.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KIND_FILE = 0, KIND_FOLDER = 1, KIND_LINK = 2 };
enum { PATH_BYTES = 1025, TARGET_BYTES = 4096 };

/* linux/openat2.h, which musl-gcc does not find. */
enum { RESOLVE_NO_MAGICLINKS = 0x02, RESOLVE_NO_SYMLINKS = 0x04, RESOLVE_BENEATH = 0x08 };

struct open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

static int function = -1;
/* The file that DATA goes to, and how much of it is missing. */
static int file = -1;
static uint64_t missing;
static uint64_t received;
static uint32_t ungranted;

static int open_beneath(const char *path, int flags, mode_t mode) {
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, function, path, &how, sizeof how);
}

/* The folder that a path's last part belongs in; `*name` becomes that part. */
static int open_parent(char *path, const char **name) {
    char *slash = strrchr(path, '/');
    *name = slash == NULL ? path : slash + 1;
    if (**name == '\0' || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) {
        errno = EINVAL;
        return -1;
    }
    if (slash == NULL) return open_beneath(".", O_PATH | O_DIRECTORY, 0);
    *slash = '\0';
    int parent = open_beneath(path, O_PATH | O_DIRECTORY, 0);
    *slash = '/';
    return parent;
}

static void finish_file(void) {
    if (file < 0 || missing > 0) return;
    /* Closed before it may be executed: a program that is open for writing cannot be. */
    close(file);
    file = -1;
}

/*
 * Everything belongs to root and can be read by the workload, however strict the umask was where it comes from; set-id
 * and sticky bits are left out.
 */
static void unpack(struct message entry) {
    static char path[PATH_BYTES], target[TARGET_BYTES];
    uint64_t kind = message_u64(entry, 2);
    mode_t mode = (mode_t)message_u64(entry, 3) & 0777;
    if (file >= 0) fault(E_CLONE_FAILED, "a file begins before the last one is complete");
    if (!message_text(entry, 1, path, sizeof path) || !message_text(entry, 5, target, sizeof target)) {
        fault(E_CLONE_FAILED, "a path is too long");
    }
    missing = message_u64(entry, 4);
    if (kind != KIND_FILE && missing > 0) fault(E_CLONE_FAILED, "%s: only a file has bytes", path);

    const char *name;
    int parent = open_parent(path, &name);
    bool made = parent >= 0;
    if (made && kind == KIND_FOLDER) {
        made = mkdirat(parent, name, 0755) == 0 && fchmodat(parent, name, mode | 0555, 0) == 0;
    } else if (made && kind == KIND_LINK) {
        made = symlinkat(target, parent, name) == 0;
    } else if (made) {
        file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        made = file >= 0 && fchmod(file, mode | 0444) == 0;
    }
    if (!made) fault(E_CLONE_FAILED, "%s: %s", path, strerror(errno));
    close(parent);
    finish_file();
}

static void append(const uint8_t *bytes, uint32_t length) {
    if (file < 0 || length > missing) fault(E_CLONE_FAILED, "bytes that belong to no file");
    if (length > STREAM_WINDOW_BYTES - ungranted) fault(E_CLONE_FAILED, "code: no-credit");
    for (uint32_t done = 0; done < length;) {
        ssize_t written = write(file, bytes + done, length - done);
        if (written <= 0) fault(E_CLONE_FAILED, "write: %s", strerror(errno));
        done += (uint32_t)written;
    }
    missing -= length;
    received += length;
    ungranted += length;
    finish_file();
    if (ungranted < STREAM_WINDOW_BYTES / 2) return;
    uint8_t credit[4];
    write_u32(credit, ungranted);
    port_send(CREDIT, STREAM_CODE, credit, sizeof credit);
    ungranted = 0;
}

static void finish(const uint8_t *payload) {
    struct end end;
    violation wrong = end_read(payload, &end);
    if (wrong != NULL) fault(E_CLONE_FAILED, "code: %s", wrong);
    if (end.total_bytes != received || end.truncated != 0 || file >= 0) fault(E_CLONE_FAILED, "code: end-total");
}

void receive_code(void) {
    struct frame frame;
    const uint8_t *payload;
    function = open(SCRATCH_PATH "/function", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (function < 0) fault(E_CLONE_FAILED, "/function: %s", strerror(errno));
    for (;;) {
        port_await(&frame, &payload);
        if (frame.type == FILE_ENTRY) {
            unpack((struct message){payload, frame.length});
        } else if (frame.type == DATA && frame.stream == STREAM_CODE) {
            append(payload, frame.length);
        } else if (frame.type == END && frame.stream == STREAM_CODE) {
            finish(payload);
            close(function);
            return;
        } else {
            fault(E_CLONE_FAILED, "order: 0x%02x while files are expected", frame.type);
        }
    }
}
