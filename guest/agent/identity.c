/*
 * Every clone wakes up as an exact copy of its template. Before anything else runs in it, it gets what must differ: the
 * kernel's random pool, the clock, its ids and its name. Each is read back from the kernel for the reply, and a clone
 * that is not certainly different ends here.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* linux/random.h, which musl-gcc does not find. */
#define RNDADDENTROPY _IOW('R', 0x03, int[2])
#define RNDRESEEDCRNG _IO('R', 0x07)

enum { ENTROPY_BYTES = 64, ID_BYTES = 40, HOSTNAME_BYTES = 65 };

struct entropy {
    int bits;
    int bytes;
    uint8_t data[ENTROPY_BYTES];
};

/*
 * Writing to /dev/urandom would leave the generator's key as it is until its next regular reseed, minutes later: only
 * both calls together make the next random byte depend on the host's.
 */
static void reseed(struct message adopt) {
    struct field field = message_field(adopt, 1);
    struct entropy entropy = {.bits = ENTROPY_BYTES * 8, .bytes = ENTROPY_BYTES};
    memcpy(entropy.data, field.value, ENTROPY_BYTES);
    int random = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    bool done = random >= 0 && ioctl(random, RNDADDENTROPY, &entropy) == 0 && ioctl(random, RNDRESEEDCRNG) == 0;
    int why = errno;
    explicit_bzero(&entropy, sizeof entropy);
    if (!done) fault(E_CLONE_NOT_UNIQUE, "reseed: %s", strerror(why));
    close(random);
}

static void set_clock(uint64_t unix_nanos) {
    struct timespec now = {.tv_sec = (time_t)(unix_nanos / 1000000000), .tv_nsec = (long)(unix_nanos % 1000000000)};
    if (clock_settime(CLOCK_REALTIME, &now) != 0) fault(E_CLONE_NOT_UNIQUE, "clock: %s", strerror(errno));
}

static uint64_t read_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The ids end up in files that programs parse. */
static void take_id(struct message adopt, uint16_t tag, const char *allowed, char *text, size_t room) {
    bool usable = message_text(adopt, tag, text, room) && *text != '\0' && text[strspn(text, allowed)] == '\0';
    if (!usable) fault(E_CLONE_NOT_UNIQUE, "field %u is not an id", tag);
}

static void keep(const char *path, const char *value) {
    char line[HOSTNAME_BYTES + 1];
    size_t length = strlen(value);
    memcpy(line, value, length);
    memcpy(line + length, "\n", 2);
    if (!make_text(path, line, 0444)) fault(E_CLONE_NOT_UNIQUE, "%s: %s", path, strerror(errno));
}

static void read_back(const char *path, char *text, size_t room) {
    if (read_text(path, text, room) < 0) fault(E_CLONE_NOT_UNIQUE, "%s: %s", path, strerror(errno));
    text[strcspn(text, "\n")] = '\0';
}

static void name_host(const char *hostname) {
    char hosts[3 * HOSTNAME_BYTES] = "127.0.0.1 localhost ";
    strcat(hosts, hostname);
    strcat(hosts, "\n::1 localhost\n");
    if (sethostname(hostname, strlen(hostname)) != 0) fault(E_CLONE_NOT_UNIQUE, "hostname: %s", strerror(errno));
    keep(ROOT_PATH "/etc/hostname", hostname);
    if (!make_text(ROOT_PATH "/etc/hosts", hosts, 0444)) fault(E_CLONE_NOT_UNIQUE, "hosts: %s", strerror(errno));
}

void adopt_identity(struct message adopt, struct writer *reply) {
    static const char hex[] = "0123456789abcdef", uuid[] = "0123456789abcdef-";
    static const char host[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    char machine_id[ID_BYTES], boot_id[ID_BYTES], hostname[HOSTNAME_BYTES];
    take_id(adopt, 3, hex, machine_id, sizeof machine_id);
    take_id(adopt, 4, uuid, boot_id, sizeof boot_id);
    take_id(adopt, 5, host, hostname, sizeof hostname);

    reseed(adopt);
    set_clock(message_u64(adopt, 2));
    keep(ROOT_PATH "/etc/machine-id", machine_id);
    keep(BOOT_ID_PATH, boot_id);
    name_host(hostname);

    struct utsname system;
    uname(&system);
    read_back(ROOT_PATH "/etc/machine-id", machine_id, sizeof machine_id);
    read_back(BOOT_ID_PATH, boot_id, sizeof boot_id);
    write_message(reply);
    write_u64_field(reply, 1, 1);
    write_u64_field(reply, 2, read_clock());
    write_text_field(reply, 3, machine_id);
    write_text_field(reply, 4, boot_id);
    write_text_field(reply, 5, system.nodename);
}
