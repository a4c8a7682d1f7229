/*
 * The story of one machine, top to bottom. In a template it runs as far as READY; there the host stops the machine and
 * saves it. Every clone wakes up at that point, is made itself, is limited, proves it, runs one event and is killed.
 *
 *   boot -> HELLO -> PREPARE -> READY | ADOPT -> ADOPTED -> CONFIGURE, code -> PROOF -> START -> streams -> EXIT
 *                             template saved
 *
 * docs/FORMATS.md has the messages and their order. Whatever else comes, or cannot be done, is a FAULT.
 */
#include "agent.h"
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

static struct writer reply;
static struct texts texts;
static char *argv[FIELDS_MAX + 1];
static char *env[FIELDS_MAX + 1];
static struct workload workload;
static struct program program;
static struct output_limits output_limits;
/* A language runtime was started in the template. */
static bool warm;

static struct message expect(uint8_t type) {
    struct frame frame;
    const uint8_t *payload;
    port_await(&frame, &payload);
    if (frame.type != type) fault(E_CLONE_FAILED, "order: 0x%02x instead of 0x%02x", frame.type, type);
    return (struct message){payload, frame.length};
}

/* ---- template ---------------------------------------------------------------------------------------------------- */

static void boot(void) {
    signal(SIGPIPE, SIG_IGN);
    /* One processor for all: a result must not wait behind the workload's own end. */
    setpriority(PRIO_PROCESS, 0, AGENT_NICE);
    mount_system();
    load_modules();
    leave_initramfs();
    port_open();
    harden_kernel();
    make_network();
    make_cgroup();
}

static void hello(void) {
    struct utsname system;
    struct sysinfo info;
    uname(&system);
    sysinfo(&info);
    write_message(&reply);
    write_u64_field(&reply, 1, PROTOCOL_VERSION);
    write_text_field(&reply, 2, AGENT_VERSION);
    write_text_field(&reply, 3, system.release);
    write_u64_field(&reply, 4, (uint64_t)info.totalram * info.mem_unit);
    write_text_field(&reply, 5, policy_features());
    port_send_message(HELLO, &reply);
}

/* The strings stay in `texts` until the program is executed. */
static void read_program(struct message message, uint16_t argv_tag, uint16_t env_tag) {
    texts.used = 0;
    if (message_list(message, argv_tag, &texts, argv) > 0 && argv[0][0] != '/') {
        fault(E_FUNCTION_LOAD, "the program is not an absolute path");
    }
    message_list(message, env_tag, &texts, env);
    program.argv = argv;
    program.env = env;
}

/* What a runtime printed while it warmed up is not the log of any event. */
static void drop_output(int pipe) {
    char chunk[512];
    ssize_t got;
    do got = read(pipe, chunk, sizeof chunk);
    while (got > 0);
}

/* A runtime answers with one word on its result pipe; whatever else it says there is the reason why it cannot. */
static void await_word(const char *word, unsigned seconds, const char *code) {
    char said[400] = "";
    size_t length = 0;
    uint64_t end = monotonic_millis() + seconds * 1000u;
    while (strcmp(said, word) != 0) {
        struct pollfd wanted = {.fd = workload.output, .events = POLLIN};
        uint64_t now = monotonic_millis();
        if (now >= end || poll(&wanted, 1, (int)(end - now)) <= 0) fault(code, "the runtime is silent");
        ssize_t got = read(workload.output, said + length, sizeof said - 1 - length);
        if (got <= 0) {
            if (length == 0) got = read(workload.stderr_, said, sizeof said - 1);
            fault(code, "the runtime ended: %s", length > 0 || got > 0 ? said : "it said nothing");
        }
        length += (size_t)got;
    }
}

static void prepare(void) {
    struct message message = expect(PREPARE);
    read_program(message, 1, 2);
    program.uid = (uid_t)message_u64(message, 3);
    program.gid = (gid_t)message_u64(message, 4);
    program.open_files = RUNTIME_OPEN_FILES;
    program.runtime = true;
    if (program.uid == 0 || program.gid == 0) fault(E_TEMPLATE_BUILD, "the workload must not be root");
    load_policy(message_field(message, 6));
    make_root(message_u64(message, 5));
    make_resolver();
    make_namespaces();
    warm = argv[0] != NULL;
    if (warm) {
        spawn_workload(&program, &workload);
        await_word("ready\n", WARM_SECONDS_MAX, E_TEMPLATE_BUILD);
        move_runtime();
        drop_output(workload.stdout_);
        drop_output(workload.stderr_);
    }
    write_message(&reply);
    write_u64_field(&reply, 1, warm);
    port_send_message(READY, &reply);
}

/* ---- clone ------------------------------------------------------------------------------------------------------- */

/* A runtime's generators have state of their own; it draws it anew from the kernel, whose own is new by now. */
static void renew_runtime(void) {
    static const char renew[] = "renew\n";
    if (write(workload.input, renew, sizeof renew - 1) != sizeof renew - 1) {
        fault(E_CLONE_NOT_UNIQUE, "the runtime is gone");
    }
    await_word("renewed\n", RENEW_SECONDS_MAX, E_CLONE_NOT_UNIQUE);
}

static void adopt(void) {
    struct message message = expect(ADOPT);
    port_adopt();
    adopt_identity(message, &reply);
    port_forget();
    if (warm) renew_runtime();
    port_send_message(ADOPTED, &reply);
}

static void configure(void) {
    struct message message = expect(CONFIGURE);
    const struct resources resources = {
        .memory_bytes = message_u64(message, 1),
        .cpu_quota_micros = message_u64(message, 2),
        .cpu_period_micros = message_u64(message, 3),
        .pids = message_u64(message, 4),
    };
    output_limits = (struct output_limits){message_u64(message, 7), message_u64(message, 8), message_u64(message, 9)};
    uid_t uid = (uid_t)message_u64(message, 12);
    gid_t gid = (gid_t)message_u64(message, 13);
    if (uid != program.uid || gid != program.gid) fault(E_CLONE_FAILED, "another user than in the template");
    program.open_files = message_u64(message, 5);
    resize_scratch(message_u64(message, 6));
    read_program(message, 10, 11);
    bool executable = argv[0] != NULL;
    if (!warm && !executable) fault(E_CLONE_FAILED, "there is nothing to execute");
    if (warm && !executable && env[0] != NULL) fault(E_CLONE_FAILED, "a warm runtime has its environment already");
    if (warm && executable) {
        /* An executable in an image whose runtime is not wanted this time. */
        discard_workload(&workload);
        renew_cgroup();
    }
    limit_cgroup(&resources);
    program.runtime = !executable;
    /* A warm runtime is under the template's policy, of the same name: all its threads are under this one from here. */
    load_policy(message_field(message, 14));
    if (executable) spawn_workload(&program, &workload);
    else limit_open_files(workload.pid, program.open_files);
    install_filter(workload.pid, message_field(message, 15));
}

static void prove(void) {
    write_proof(&workload, &reply);
    port_send_message(PROOF, &reply);
}

static void start(void) {
    expect(START);
    if (!workload.runtime) release_workload(&workload);
}

static void run(void) {
    struct ending ending = run_workload(&workload, &output_limits);
    struct usage usage = read_usage();
    write_message(&reply);
    write_u64_field(&reply, 1, ending.exit_code);
    write_u64_field(&reply, 2, ending.signal);
    write_u64_field(&reply, 3, usage.cpu_micros);
    write_u64_field(&reply, 4, usage.memory_peak_bytes);
    write_u64_field(&reply, 5, usage.oom_kills);
    write_u64_field(&reply, 6, usage.pids_max_hits);
    port_send_message(EXIT, &reply);
}

int main(void) {
    boot();
    hello();
    prepare();
    /* Here the host saves the template. What follows happens in a clone. */
    adopt();
    configure();
    receive_code();
    prove();
    start();
    run();
    /* The host kills the machine. */
    for (;;) port_flush(1), usleep(100000);
}
