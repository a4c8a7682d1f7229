/**
 * Which system calls a workload may make: named sets, put together for each class of function, and everything else
 * refused. What a program may merely want and can do without is EPERM; what only an attack on the kernel needs ends the
 * process. docs/PROFILES.md has the table. `strict` is always a part of `standard`, which a test proves for every call.
 */
import { digestOf } from '../core/json.ts';
import { assembleFilter } from './bpf.ts';
import type { Verdict } from './bpf.ts';
import type { PolicyClass } from './classes.ts';
import { syscallNumbers } from './syscalls.ts';

/** errno of asm-generic. */
const EPERM = 1;
const ENOSYS = 38;

const list = (names: string): string[] => names.trim().split(/\s+/);

const sets = {
  io: list(`
    read write open openat openat2 creat close close_range lseek pread64 pwrite64 readv writev preadv pwritev preadv2
    pwritev2 pipe pipe2 dup dup2 dup3 fcntl flock fsync fdatasync sync_file_range truncate ftruncate fallocate sendfile
    splice tee vmsplice copy_file_range fadvise64 readahead poll ppoll select pselect6 epoll_create epoll_create1
    epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime
    timerfd_gettime`),
  files: list(`
    stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 getdents getdents64 getcwd chdir fchdir
    rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink readlinkat
    chmod fchmod fchmodat utime utimes futimesat utimensat umask`),
  memory: list('mmap mprotect munmap mremap brk madvise mincore msync membarrier pkey_alloc pkey_free pkey_mprotect'),
  process: list(`
    fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigreturn
    rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack pause prctl arch_prctl
    set_tid_address set_robust_list get_robust_list futex futex_waitv rseq getpid getppid gettid getpgrp getpgid setpgid
    getsid setsid getuid geteuid getgid getegid getresuid getresgid getgroups getrlimit prlimit64 setrlimit getrusage
    times sysinfo uname capget getpriority sched_yield sched_getaffinity sched_getscheduler sched_getparam sched_getattr
    sched_get_priority_max sched_get_priority_min pidfd_open pidfd_send_signal restart_syscall getcpu`),
  time: list(`
    gettimeofday time clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer timer_create
    timer_settime timer_gettime timer_getoverrun timer_delete getrandom`),
  /** Sockets of the machine itself; which families there are is a condition of `socket`. */
  local: list(`
    socketpair connect sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown getsockname getpeername getsockopt
    setsockopt`),
  server: list('bind listen accept accept4'),
  /** What may be useful and is not needed. */
  extra: list(`
    setpriority sched_setaffinity sched_setscheduler sched_setparam sched_setattr chown fchown lchown fchownat mknod
    mknodat sync syncfs inotify_init inotify_init1 inotify_add_watch inotify_rm_watch memfd_create mlock mlock2 munlock
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr seccomp
    landlock_create_ruleset landlock_add_rule landlock_restrict_self setuid setgid setreuid setregid setresuid setresgid
    setfsuid setfsgid setgroups capset ioprio_get ioprio_set personality`),
  shared: list('shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl'),
  /** Nobody needs them who does not attack the kernel or another process. */
  deadly: list(`
    ptrace process_vm_readv process_vm_writev kexec_load kexec_file_load init_module finit_module delete_module bpf
    userfaultfd mount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr setns
    open_by_handle_at iopl ioperm reboot swapon swapoff pidfd_getfd`),
} as const;

type SetName = Exclude<keyof typeof sets, 'deadly'>;

const needed: readonly SetName[] = ['io', 'files', 'memory', 'process', 'time', 'local'];

/** Beside what all need, in `standard` and in `strict`. */
const classSets: Readonly<Record<PolicyClass, Readonly<Record<SyscallLevel, readonly SetName[]>>>> = {
  compute: { standard: ['server', 'extra', 'shared'], strict: [] },
  web: { standard: ['server', 'extra'], strict: ['server'] },
  shell: { standard: ['server', 'extra', 'shared'], strict: [] },
  database: { standard: ['server', 'extra', 'shared'], strict: ['shared'] },
  image: { standard: [], strict: [] },
  document: { standard: [], strict: [] },
  analysis: { standard: [], strict: [] },
};

export const syscallLevels = ['standard', 'strict'] as const;
export type SyscallLevel = (typeof syscallLevels)[number];

export interface FilterSource {
  readonly functionClass: PolicyClass;
  readonly level: SyscallLevel;
  /** It may open sockets of the network: connections meet the broker all the same. */
  readonly network: boolean;
}

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
/** CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const NEW_NAMESPACES = 0x7e02_0080;
/** Types into a terminal what another program then reads (TIOCSTI), and what a console can do (TIOCLINUX). */
const TERMINAL_TRICKS = [0x5412, 0x541c];

const ALLOW: Verdict = { kind: 'allow' };

/** The program for the kernel, and the digest that a profile has it by. */
export function seccompFilter({ functionClass, level, network }: FilterSource): { program: Buffer; digest: string } {
  const table = new Map<number, Verdict>();
  const set = (name: string, verdict: Verdict): void => void table.set(numberOf(name), verdict);
  for (const group of [...needed, ...classSets[functionClass][level]]) {
    for (const name of sets[group]) set(name, ALLOW);
  }
  const families = network ? [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK] : [AF_UNIX];
  set('socket', { kind: 'if', argument: 0, test: { is: 'one-of', values: families }, otherwise: EPERM });
  set('clone', { kind: 'if', argument: 0, test: { is: 'without', bits: NEW_NAMESPACES }, otherwise: EPERM });
  set('ioctl', { kind: 'if', argument: 1, test: { is: 'none-of', values: TERMINAL_TRICKS }, otherwise: EPERM });
  // Its flags are in memory, where no filter sees them. Who hears that it does not exist takes clone().
  set('clone3', { kind: 'errno', errno: ENOSYS });
  set('io_uring_setup', { kind: 'errno', errno: ENOSYS });
  for (const name of sets.deadly) set(name, { kind: 'kill' });
  const program = assembleFilter(table, { kind: 'errno', errno: EPERM });
  return { program, digest: digestOf(program) };
}

function numberOf(name: string): number {
  const number = syscallNumbers.get(name);
  if (number === undefined) throw new Error(`profile/seccomp.ts: there is no system call ${name}`);
  return number;
}
