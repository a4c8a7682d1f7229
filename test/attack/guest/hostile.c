/*
 * A guest that has lost its kernel, for the attacks that only ring 0 can make. It is the real agent with one more
 * process in it, root and outside of every namespace, which waits until a workload of the name `attack-KIND` runs and
 * then does with the machine's ports, memory and virtqueues what no driver does. What it says goes to the console.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sched.h>

#define PAGES 32
#define PAGE 4096u

static int console = -1;
static uint32_t state = 1;

static void say(const char *format, ...) {
    char line[200];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    if (length > (int)sizeof line - 2) length = (int)sizeof line - 2;
    line[length] = '\n';
    if (write(console, "hostile: ", 9) < 0 || write(console, line, (size_t)length + 1) < 0) return;
}

static uint32_t any(void) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static uint32_t below(uint32_t bound) {
    return any() % bound;
}

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, text, strlen(text)) < 0) say("%s: not written", path);
    if (file >= 0) close(file);
}

/* ---- memory that a device can be pointed at -------------------------------------------------------------------- */

static uint8_t *pages;
static uint64_t physical[PAGES];
static uint64_t ram_end;

static void take_pages(void) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED;
    pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    int map = open("/h/proc/self/pagemap", O_RDONLY);
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t entry = 0;
        pages[i * PAGE] = 1;
        off_t where = (off_t)(((uintptr_t)pages / PAGE + i) * 8);
        if (pread(map, &entry, 8, where) != 8) say("no page map");
        physical[i] = (entry & ((1ull << 55) - 1)) * PAGE;
    }
    close(map);
    ram_end = (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE;
    say("page 0 at %llx", (unsigned long long)physical[0]);
}

/* ---- PCI ------------------------------------------------------------------------------------------------------- */

struct device {
    unsigned slot;
    uint64_t common, notify, config;
    uint32_t multiplier;
    uint64_t bars[6];
    bool block;
};

static struct device devices[4];
static unsigned found;

static uint32_t pci_get(unsigned slot, unsigned at) {
    outl(0x80000000u | slot << 11 | (at & 0xfc), 0xcf8);
    return inl(0xcfc);
}

static void pci_put(unsigned slot, unsigned at, uint32_t value) {
    outl(0x80000000u | slot << 11 | (at & 0xfc), 0xcf8);
    outl(value, 0xcfc);
}

static uint64_t bar_of(unsigned slot, unsigned bar) {
    uint32_t low = pci_get(slot, 0x10 + 4 * bar);
    if (low & 1) return low & ~3u;
    uint64_t high = (low & 6) == 4 ? pci_get(slot, 0x14 + 4 * bar) : 0;
    return high << 32 | (low & ~15u);
}

static void find_devices(void) {
    for (unsigned slot = 0; slot < 32 && found < 4; slot++) {
        uint32_t id = pci_get(slot, 0);
        if ((id & 0xffff) != 0x1af4) continue;
        struct device *device = &devices[found++];
        device->slot = slot;
        device->block = (id >> 16 & 0x3f) == 1;
        for (unsigned bar = 0; bar < 6; bar++) device->bars[bar] = bar_of(slot, bar);
        unsigned at = pci_get(slot, 0x34) & 0xfc;
        for (unsigned steps = 0; at != 0 && steps < 32; steps++) {
            uint32_t head = pci_get(slot, at);
            if ((head & 0xff) == 9) {
                unsigned type = head >> 24;
                uint64_t where = device->bars[pci_get(slot, at + 4) & 7] + pci_get(slot, at + 8);
                if (type == 1) device->common = where;
                if (type == 2) device->notify = where, device->multiplier = pci_get(slot, at + 16);
                if (type == 4) device->config = where;
            }
            at = head >> 8 & 0xfc;
        }
        say("slot %u id %x common %llx", slot, id, (unsigned long long)device->common);
    }
}

/* Its driver goes, so that the kernel lets its registers be mapped; then it decodes and masters the bus again. */
static void seize(struct device *device) {
    char name[32];
    snprintf(name, sizeof name, "0000:00:%02x.0", device->slot);
    put("/h/sys/bus/pci/drivers/virtio-pci/unbind", name);
    pci_put(device->slot, 4, pci_get(device->slot, 4) | 7);
}

static volatile uint8_t *registers_at(uint64_t where) {
    int memory = open("/h/dev/mem", O_RDWR | O_SYNC);
    off_t page = (off_t)(where & ~(uint64_t)(PAGE - 1));
    void *mapped = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, page);
    close(memory);
    if (mapped == MAP_FAILED) return NULL;
    return (volatile uint8_t *)mapped + where % PAGE;
}

/* ---- virtqueues ------------------------------------------------------------------------------------------------ */

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

static uint64_t bad_address(const struct device *device) {
    const uint64_t candidates[] = {
        0, 0xfee00000, 0xfec00000, 0xfed00000, 0xb0000000, ram_end - 8, ram_end, 1ull << 40, UINT64_MAX - 15,
        device->common, device->notify, device->config, device->bars[1], 0xfffffff0, 0xa0000, 0xfee00300,
        devices[0].notify, devices[found - 1].common,
    };
    return candidates[below(sizeof candidates / sizeof *candidates)];
}

static uint64_t some_address(const struct device *device) {
    if (below(3) == 0) return bad_address(device);
    return physical[below(PAGES)] + (below(4) == 0 ? below(PAGE) : 0);
}

static uint32_t some_length(void) {
    const uint32_t candidates[] = {0, 1, 15, 16, 17, 512, PAGE, 65536, 0x7fffffff, 0x80000000, 0xffffffff};
    return below(2) ? candidates[below(sizeof candidates / sizeof *candidates)] : 16 * below(64);
}

static void fill_requests(void) {
    const uint32_t types[] = {0, 1, 4, 8, 11, 13, 14, 0x80000000, 0xffffffff};
    for (unsigned i = 0; i < PAGES; i++) {
        uint32_t *words = (uint32_t *)(void *)(pages + i * PAGE);
        for (unsigned j = 0; j < PAGE / 4; j++) words[j] = below(3) ? 0 : any();
        words[0] = below(8) ? types[below(sizeof types / sizeof *types)] : any();
        words[2] = below(2) ? below(4096) : any();
        words[3] = below(3) ? 0 : any();
    }
}

static void fill_table(const struct device *device, struct descriptor *table, unsigned size) {
    for (unsigned i = 0; i < size; i++) {
        table[i].address = some_address(device);
        table[i].length = some_length();
        table[i].flags = (uint16_t)(below(4) ? below(4) : below(8));
        table[i].next = (uint16_t)(below(4) ? (i + 1) % size : below(4) ? below(size) : any());
    }
}

static void queue_round(struct device *device, volatile uint8_t *common, volatile uint8_t *notify) {
    common[0x14] = 0;
    common[0x14] = 3;
    for (unsigned half = 0; half < 2; half++) {
        *(volatile uint32_t *)(common + 0) = half;
        uint32_t offered = *(volatile uint32_t *)(common + 4);
        *(volatile uint32_t *)(common + 8) = half;
        *(volatile uint32_t *)(common + 12) = below(4) ? offered & (half ? 1 : below(2) ? any() : 0) : any();
    }
    common[0x14] = 11;
    uint16_t queues = *(volatile uint16_t *)(common + 0x12);
    if (below(16) == 0) *(volatile uint16_t *)(common + 0x10) = (uint16_t)any();
    fill_requests();
    for (unsigned queue = 0; queue < queues && queue < 6; queue++) {
        *(volatile uint16_t *)(common + 0x16) = (uint16_t)(below(32) ? queue : any());
        uint16_t size = (uint16_t)(1u << below(9));
        *(volatile uint16_t *)(common + 0x18) = below(8) ? size : (uint16_t)any();
        const unsigned base = (queue % 4) * 3;
        struct descriptor *table = (struct descriptor *)(void *)(pages + base * PAGE);
        fill_table(device, table, PAGE / sizeof *table);
        uint16_t *ring = (uint16_t *)(void *)(pages + (base + 1) * PAGE);
        for (unsigned i = 2; i < PAGE / 2; i++) ring[i] = (uint16_t)(below(8) ? below(size) : any());
        ring[0] = 0;
        ring[1] = (uint16_t)(below(4) ? 1 + below(4) : any());
        uint64_t where[3];
        for (unsigned part = 0; part < 3; part++) {
            where[part] = below(12) ? physical[base + part] : bad_address(device);
            *(volatile uint32_t *)(common + 0x20 + 8 * part) = (uint32_t)where[part];
            *(volatile uint32_t *)(common + 0x24 + 8 * part) = (uint32_t)(where[part] >> 32);
        }
        *(volatile uint16_t *)(common + 0x1c) = 1;
    }
    common[0x14] = 15;
    for (unsigned queue = 0; queue < queues && queue < 6; queue++) {
        *(volatile uint16_t *)(common + 0x16) = (uint16_t)queue;
        uint32_t offset = *(volatile uint16_t *)(common + 0x1e) * device->multiplier;
        *(volatile uint16_t *)(notify + offset % (3 * PAGE)) = (uint16_t)(below(16) ? queue : any());
    }
}

static void attack_queues(void) {
    take_pages();
    for (unsigned i = 0; i < found; i++) seize(&devices[i]);
    for (unsigned i = 0; i < found; i++) {
        volatile uint8_t *common = registers_at(devices[i].common);
        volatile uint8_t *notify = registers_at(devices[i].notify);
        volatile uint8_t *config = registers_at(devices[i].config);
        if (common == NULL || notify == NULL || config == NULL) {
            say("slot %u: not mapped", devices[i].slot);
            continue;
        }
        for (unsigned round = 0; round < 400; round++) {
            queue_round(&devices[i], common, notify);
            if (below(4) == 0) config[below(64)] = (uint8_t)any();
            if (below(8) == 0) common[below(0x38)] = (uint8_t)any();
            if (round % 100 == 99) say("slot %u: %u rounds of queues", devices[i].slot, round + 1);
        }
    }
}

/* ---- ports ----------------------------------------------------------------------------------------------------- */

static uint16_t some_port(void) {
    /* Interrupt controllers, timer, keyboard, clock, DMA, POST, power management, fw_cfg, PCI, serial. */
    static const uint16_t known[] = {
        0x00, 0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xa0, 0xa1, 0xb2, 0xb3, 0xc0, 0x3f8,
        0x3f9, 0x3fb, 0x4d0, 0x510, 0x511, 0x514, 0x518, 0x600, 0x608, 0x620, 0x628, 0x660, 0xcd8, 0xcd9, 0xcf8, 0xcfc,
    };
    if (below(3) == 0) return (uint16_t)any();
    return (uint16_t)(known[below(sizeof known / sizeof *known)] + below(4));
}

static bool ends_the_guest(uint16_t port) {
    return (port >= 0xcf6 && port <= 0xcf9) || port == 0x92 || port == 0x64 || (port >= 0x601 && port <= 0x605) ||
           port == 0xb2;
}

static void attack_ports(void) {
    take_pages();
    for (unsigned round = 0; round < 40000; round++) {
        uint16_t port = some_port();
        /* The last rounds do not spare the guest. */
        if (round < 36000 && ends_the_guest(port)) continue;
        uint32_t width = below(6);
        if (width == 0) outb((uint8_t)any(), port);
        if (width == 1) outw((uint16_t)any(), port);
        if (width == 2) outl(any(), port);
        if (width == 3) (void)inb(port);
        if (width == 4) (void)inw(port);
        if (width == 5) (void)inl(port);
        if (below(16) == 0 && found > 0) outl(any(), (uint16_t)(devices[below(found)].bars[0] + below(32)));
        if (below(64) == 0) {
            /* fw_cfg's DMA: a request in memory, big-endian, whose address the second port takes. */
            uint32_t *request = (uint32_t *)(void *)pages;
            uint64_t target = below(2) ? physical[1 + below(PAGES - 1)] : bad_address(&devices[0]);
            request[0] = __builtin_bswap32(below(64) << 16 | below(32));
            request[1] = __builtin_bswap32(some_length());
            request[2] = __builtin_bswap32((uint32_t)(target >> 32));
            request[3] = __builtin_bswap32((uint32_t)target);
            uint64_t where = below(8) ? physical[0] : bad_address(&devices[0]);
            outl(__builtin_bswap32((uint32_t)(where >> 32)), 0x514);
            outl(__builtin_bswap32((uint32_t)where), 0x518);
        }
        if (round % 10000 == 9999) say("%u rounds of ports", round + 1);
    }
}

static void attack_config(void) {
    for (unsigned round = 0; round < 20000; round++) {
        unsigned slot = below(3) ? devices[below(found)].slot : below(32);
        unsigned at = below(64) * 4;
        uint32_t old = pci_get(slot, at);
        pci_put(slot, at, below(2) ? any() : old ^ 1u << below(32));
        if (below(2)) pci_put(slot, at, old);
        if (round % 10000 == 9999) say("%u rounds of PCI configuration", round + 1);
    }
}

static void storm_of_timers(void) {
    say("a storm of timers");
    outb(0x0b, 0x70), outb(0x42, 0x71);
    outb(0x0a, 0x70), outb(0x23, 0x71);
    for (;;) {
        outb(0x34, 0x43);
        outb(0x02, 0x40);
        outb(0x00, 0x40);
        outb(0x0c, 0x70), (void)inb(0x71);
    }
}

/* ---- what it is told ------------------------------------------------------------------------------------------- */

static void list(const char *folder) {
    DIR *opened = opendir(folder);
    for (struct dirent *entry; opened != NULL && (entry = readdir(opened)) != NULL;) {
        if (entry->d_name[0] != '.') say("has %s", entry->d_name);
    }
    if (opened != NULL) closedir(opened);
}

static void attack(const char *kind) {
    iopl(3);
    for (const char *letter = kind; *letter != '\0'; letter++) state = state * 31 + (uint8_t)*letter;
    find_devices();
    say("begins %s with seed %u", kind, state);
    if (strcmp(kind, "queues") == 0) attack_queues();
    if (strcmp(kind, "ports") == 0) attack_ports();
    if (strcmp(kind, "config") == 0) attack_config();
    if (strcmp(kind, "timers") == 0) storm_of_timers();
    if (strcmp(kind, "look") == 0) {
        list("/h/sys/bus/pci/devices"), list("/h/sys/class/virtio-ports"), list("/h/sys/class/tty");
    }
    if (strcmp(kind, "triple") == 0) put("/h/sys/kernel/reboot/type", "triple"), reboot(RB_AUTOBOOT);
    if (strcmp(kind, "reboot") == 0) reboot(RB_AUTOBOOT);
    if (strcmp(kind, "panic") == 0) put("/h/proc/sysrq-trigger", "c");
    if (strcmp(kind, "reset") == 0) outb(0x02, 0xcf9), outb(0x06, 0xcf9);
    if (strcmp(kind, "keyboard") == 0) outb(0xfe, 0x64);
    if (strcmp(kind, "deaf") == 0) __asm__ volatile("cli; 1: jmp 1b");
    say("ends %s", kind);
    usleep(200000);
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

static void await_order(void) {
    for (;; usleep(50000)) {
        DIR *processes = opendir("/h/proc");
        for (struct dirent *entry; processes != NULL && (entry = readdir(processes)) != NULL;) {
            char path[300], name[32] = "";
            snprintf(path, sizeof path, "/h/proc/%s/comm", entry->d_name);
            int file = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? open(path, O_RDONLY) : -1;
            if (file < 0) continue;
            ssize_t length = read(file, name, sizeof name - 1);
            close(file);
            if (length <= 0 || strncmp(name, "attack-", 7) != 0) continue;
            name[length - 1] = '\0';
            attack(name + 7);
        }
        if (processes != NULL) closedir(processes);
    }
}

/* Before the agent's own main: as PID 1, in a mount namespace of its own from then on. */
__attribute__((constructor)) static void begin(void) {
    if (getpid() != 1 || fork() != 0) return;
    unshare(CLONE_NEWNS);
    mkdir("/h", 0700), mkdir("/h/proc", 0700), mkdir("/h/sys", 0700), mkdir("/h/dev", 0700);
    mount("proc", "/h/proc", "proc", 0, "");
    mount("sysfs", "/h/sys", "sysfs", 0, "");
    mount("devtmpfs", "/h/dev", "devtmpfs", 0, "");
    console = open("/h/dev/ttyS0", O_WRONLY | O_NOCTTY);
    await_order();
}
