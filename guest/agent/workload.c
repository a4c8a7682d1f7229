/*
 * The workload's namespaces and its process.
 *
 *   agent (PID 1)
 *   ├── keeper    PID 1 of the workload's PID namespace: holds the namespaces, reaps orphans, does nothing else
 *   └── workload  PID 2 there: the runtime, or the executable; its status comes to the agent directly
 *
 * Both are forks of the agent. The agent's memory holds no secret when they are made that the workload could not know:
 * they have another user than the workload (the keeper) or give the memory up with execve before anything untrusted
 * runs.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Debian's nobody: owns no file and is not the workload, so the workload can neither signal nor trace the keeper. */
enum { KEEPER_ID = 65534 };
/* Above every descriptor that a workload is given. */
enum { HOLD_FD = 10, REPORT_FD = 11, POLICY_FD = 12 };

static int keeper = -1;

/* ---- namespaces -------------------------------------------------------------------------------------------------- */

struct trouble {
    int error;
    char what[60];
};

static void tell(int pipe, const char *what) {
    struct trouble trouble = {.error = errno};
    snprintf(trouble.what, sizeof trouble.what, "%s", what);
    ssize_t written = write(pipe, &trouble, sizeof trouble);
    _exit(written == sizeof trouble ? 127 : 126);
}

/* False when the other side closed the pipe without trouble. */
static bool hear(int pipe, struct trouble *trouble) {
    ssize_t got;
    do got = read(pipe, trouble, sizeof *trouble);
    while (got < 0 && errno == EINTR);
    return got == sizeof *trouble;
}

static void make_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) != 0) fault(E_CLONE_FAILED, "pipe: %s", strerror(errno));
}

static _Noreturn void keep_namespaces(int report) {
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC) != 0) tell(report, "namespaces");
    const char *wrong = enter_root();
    if (wrong == NULL) wrong = drop_privileges(KEEPER_ID, KEEPER_ID);
    if (wrong != NULL) tell(report, wrong);
    setpriority(PRIO_PROCESS, 0, 0);
    prctl(PR_SET_NAME, "keeper", 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    signal(SIGCHLD, SIG_IGN); /* orphans are reaped by the kernel */
    syscall(SYS_close_range, 0, ~0u, 0);
    for (;;) pause();
}

/* The host name is the whole machine's: the workload may see it and has no capability to change it. */
void make_namespaces(void) {
    int report[2];
    struct trouble trouble;
    make_pipe(report);
    /* From here on every child of the agent is born into this namespace, the first one as its PID 1. */
    if (unshare(CLONE_NEWPID) != 0) fault(E_TEMPLATE_BUILD, "PID namespace: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) fault(E_TEMPLATE_BUILD, "keeper: %s", strerror(errno));
    if (pid == 0) keep_namespaces(report[1]);
    close(report[1]);
    if (hear(report[0], &trouble)) fault(E_TEMPLATE_BUILD, "%s: %s", trouble.what, strerror(trouble.error));
    close(report[0]);
    keeper = (int)syscall(SYS_pidfd_open, pid, 0);
    if (keeper < 0) fault(E_TEMPLATE_BUILD, "keeper: %s", strerror(errno));
}

/* ---- the workload's side of the fork ----------------------------------------------------------------------------- */

static bool set_limit(pid_t pid, int which, uint64_t value) {
    const struct rlimit limit = {value, value};
    return prlimit(pid, which, &limit, NULL) == 0;
}

static bool reset_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    /* Refused for SIGKILL, SIGSTOP and those that musl keeps for itself. */
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
    return sigprocmask(SIG_SETMASK, &none, NULL) == 0;
}

/* Where the pipes have to be, and nothing else open above them but `HOLD_FD`, `REPORT_FD` and `POLICY_FD`. */
static bool arrange_descriptors(const struct program *program, const int theirs[4], int hold, int report, int policy) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int input = theirs[0], output = theirs[1], out = theirs[2], err = theirs[3];
    const int wanted[5] = {
        program->runtime ? null : input, program->runtime ? out : output, err,
        program->runtime ? input : -1, program->runtime ? output : -1,
    };
    /* First out of the way of the numbers that are wanted. */
    int parked[5];
    for (int i = 0; i < 5; i++) {
        parked[i] = wanted[i] < 0 ? -1 : fcntl(wanted[i], F_DUPFD_CLOEXEC, 20);
        if (wanted[i] >= 0 && parked[i] < 0) return false;
    }
    int parked_hold = fcntl(hold, F_DUPFD_CLOEXEC, 20), parked_report = fcntl(report, F_DUPFD_CLOEXEC, 20);
    int parked_policy = fcntl(policy, F_DUPFD_CLOEXEC, 20);
    if (dup3(parked_hold, HOLD_FD, O_CLOEXEC) < 0 || dup3(parked_report, REPORT_FD, O_CLOEXEC) < 0) return false;
    if (dup3(parked_policy, POLICY_FD, O_CLOEXEC) < 0) return false;
    for (int i = 0; i < 5; i++) {
        if (parked[i] >= 0 && dup2(parked[i], i) != i) return false;
    }
    unsigned first = program->runtime ? 5 : 3;
    return syscall(SYS_close_range, first, HOLD_FD - 1, 0) == 0 && syscall(SYS_close_range, POLICY_FD + 1, ~0u, 0) == 0;
}

/* Everything is in force: the agent reads the proof from this very process, then lets it go. */
static void hold_still(void) {
    const struct trouble none = {.error = 0};
    char go;
    if (write(REPORT_FD, &none, sizeof none) != sizeof none || read(HOLD_FD, &go, 1) != 1) _exit(126);
}

static _Noreturn void become_workload(const struct program *program, const int theirs[4], int hold, int report) {
    /* In the agent's view, where the cgroup and a writable /proc are. */
    const char *group = program->runtime ? WARM_UP_PATH "/cgroup.procs" : CGROUP_PATH "/cgroup.procs";
    if (!write_text(group, "0")) tell(report, "cgroup");
    if (!write_text("/proc/self/oom_score_adj", "1000")) tell(report, "oom score");
    if (setpriority(PRIO_PROCESS, 0, 0) != 0) tell(report, "priority");
    int policy = open(POLICY_SELF, O_WRONLY | O_CLOEXEC);
    if (policy < 0) tell(report, "policy");
    if (setns(keeper, CLONE_NEWNS | CLONE_NEWIPC) != 0) tell(report, "namespaces");
    if (chdir("/function") != 0) tell(report, "/function");
    if (!arrange_descriptors(program, theirs, hold, report, policy)) tell(report, "descriptors");
    if (setsid() < 0 || !reset_signals()) tell(REPORT_FD, "session");
    umask(022);
    if (!set_limit(0, RLIMIT_CORE, 0) || !set_limit(0, RLIMIT_NOFILE, program->open_files)) tell(REPORT_FD, "rlimits");
    const char *wrong = drop_privileges(program->uid, program->gid);
    if (wrong != NULL) tell(REPORT_FD, wrong);
    wrong = install_first_filter();
    if (wrong != NULL) tell(REPORT_FD, wrong);
    if (write(POLICY_FD, POLICY_ENTER, sizeof POLICY_ENTER - 1) != sizeof POLICY_ENTER - 1) tell(REPORT_FD, "policy");
    close(POLICY_FD);

    if (!program->runtime) hold_still();
    execve(program->argv[0], program->argv, program->env);
    tell(REPORT_FD, program->argv[0]);
    _exit(127);
}

/* ---- the agent's side -------------------------------------------------------------------------------------------- */

static void set_nonblocking(int file) {
    if (file >= 0) fcntl(file, F_SETFL, O_NONBLOCK);
}

static void await_hold(const struct workload *workload) {
    struct trouble trouble = {.error = 0, .what = "the process ended"};
    if (!hear(workload->report, &trouble) || trouble.error != 0) {
        fault(E_CLONE_FAILED, "%s: %s", trouble.what, strerror(trouble.error));
    }
}

void spawn_workload(const struct program *program, struct workload *workload) {
    int input[2], output[2], out[2] = {-1, -1}, err[2], hold[2], report[2];
    make_pipe(input);
    make_pipe(output);
    make_pipe(err);
    make_pipe(hold);
    make_pipe(report);
    /* An executable's stdout is its result; it has no other. */
    if (program->runtime) make_pipe(out);

    pid_t pid = fork();
    if (pid < 0) fault(E_CLONE_FAILED, "workload: %s", strerror(errno));
    if (pid == 0) {
        const int theirs[4] = {input[0], output[1], out[1], err[1]};
        become_workload(program, theirs, hold[0], report[1]);
    }
    close(input[0]);
    close(output[1]);
    if (program->runtime) close(out[1]);
    close(err[1]);
    close(hold[0]);
    close(report[1]);

    *workload = (struct workload){
        .pid = pid,
        .pidfd = (int)syscall(SYS_pidfd_open, pid, 0),
        .input = input[1], .output = output[0], .stdout_ = out[0], .stderr_ = err[0],
        .hold = hold[1], .report = report[0],
        .runtime = program->runtime,
    };
    if (workload->pidfd < 0) fault(E_CLONE_FAILED, "workload: %s", strerror(errno));
    /* Non-blocking for the agent alone: each end of a pipe has its own flags. */
    set_nonblocking(workload->input);
    set_nonblocking(workload->output);
    set_nonblocking(workload->stdout_);
    set_nonblocking(workload->stderr_);
    if (program->runtime) release_workload(workload);
    else await_hold(workload);
}

void release_workload(struct workload *workload) {
    struct trouble trouble;
    if (!workload->runtime && write(workload->hold, "", 1) != 1) fault(E_CLONE_FAILED, "the held process is gone");
    close(workload->hold);
    if (hear(workload->report, &trouble)) fault(E_FUNCTION_LOAD, "%s: %s", trouble.what, strerror(trouble.error));
    close(workload->report);
}

void discard_workload(struct workload *workload) {
    const int pipes[] = {workload->input, workload->output, workload->stdout_, workload->stderr_};
    struct pollfd ended = {.fd = workload->pidfd, .events = POLLIN};
    kill_cgroup();
    if (poll(&ended, 1, KILL_SECONDS_MAX * 1000) <= 0 || waitpid(workload->pid, NULL, 0) != workload->pid) {
        fault(E_CLONE_FAILED, "the runtime does not end");
    }
    close(workload->pidfd);
    for (size_t i = 0; i < sizeof pipes / sizeof *pipes; i++) close(pipes[i]);
}

void limit_open_files(pid_t pid, uint64_t open_files) {
    if (!set_limit(pid, RLIMIT_NOFILE, open_files)) fault(E_CLONE_FAILED, "open files: %s", strerror(errno));
}
