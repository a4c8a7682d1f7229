/** Processes of a guest, running and gone, with what they had open: from the kernel's lists and from what it freed. */
import { limits } from '../../core/limits.ts';
import { printableLine } from '../../core/json.ts';
import type { GuestKernel } from './kernel.ts';
import { pathOf } from './paths.ts';

export interface GuestProcess {
  /** Of the thread group, and of its parent. */
  readonly pid: number;
  readonly parent: number;
  readonly uid: number;
  readonly name: string;
  /** `exited`: its remains were found in memory that the kernel had freed. */
  readonly state: 'running' | 'stopped' | 'exited';
  /** Nanoseconds since the guest's template was booted. */
  readonly startedNanos: bigint;
  readonly exitCode: number;
  readonly threads: number;
  readonly program: string;
  readonly arguments: readonly string[];
  readonly files: readonly string[];
  /** A thread of the kernel. */
  readonly ofKernel: boolean;
}

/** PF_KTHREAD. */
const KERNEL_THREAD = 0x00200000n;

/** On the kernel's list, oldest first. */
export function listProcesses(kernel: GuestKernel): GuestProcess[] {
  const head = kernel.symbol('init_task') + BigInt(kernel.field('task_struct', 'tasks').offset);
  return [...kernel.list(head, 'task_struct', 'tasks', limits.guestProcessesMax)].map((task) => describe(kernel, task));
}

function describe(kernel: GuestKernel, task: bigint): GuestProcess {
  const mm = kernel.pointer(task, 'task_struct', 'mm');
  const state = kernel.has('task_struct', '__state')
    ? kernel.number(task, 'task_struct', '__state')
    : kernel.number(task, 'task_struct', 'state');
  const stopped = state === 4n || state === 8n;
  const exitState = kernel.number(task, 'task_struct', 'exit_state');
  const basic = identify(kernel, task);
  const ofKernel = (kernel.number(task, 'task_struct', 'flags') & KERNEL_THREAD) !== 0n;
  return {
    ...basic,
    state: exitState !== 0n || (mm === 0n && !ofKernel) ? 'exited' : stopped ? 'stopped' : 'running',
    threads: Number(kernel.number(kernel.pointer(task, 'task_struct', 'signal'), 'signal_struct', 'nr_threads')),
    program: mm === 0n ? '' : programOf(kernel, mm),
    arguments: mm === 0n ? [] : argumentsOf(kernel, mm),
    files: openFiles(kernel, task),
    ofKernel,
  };
}

type Basic = Pick<GuestProcess, 'pid' | 'parent' | 'uid' | 'name' | 'startedNanos' | 'exitCode'>;

function identify(kernel: GuestKernel, task: bigint): Basic {
  const parent = kernel.pointer(task, 'task_struct', 'real_parent');
  const cred = kernel.pointer(task, 'task_struct', 'cred');
  return {
    pid: Number(kernel.number(task, 'task_struct', 'tgid')),
    parent: Number(kernel.number(parent, 'task_struct', 'tgid')),
    uid: Number(kernel.number(cred, 'cred', 'uid.val')),
    name: printableLine(kernel.textField(task, 'task_struct', 'comm'), 16),
    startedNanos: kernel.number(task, 'task_struct', 'start_time'),
    exitCode: Number(kernel.number(task, 'task_struct', 'exit_code')),
  };
}

function programOf(kernel: GuestKernel, mm: bigint): string {
  const file = kernel.pointer(mm, 'mm_struct', 'exe_file');
  return file === 0n ? '' : pathOf(kernel, file + BigInt(kernel.field('file', 'f_path').offset));
}

/** From the process's own memory: it may have changed them. */
function argumentsOf(kernel: GuestKernel, mm: bigint): string[] {
  const root = kernel.space.translate(kernel.pointer(mm, 'mm_struct', 'pgd'));
  if (root === undefined) return [];
  const start = kernel.number(mm, 'mm_struct', 'arg_start');
  const length = Number(kernel.number(mm, 'mm_struct', 'arg_end') - start);
  if (!(length > 0)) return [];
  const bytes = kernel.space.other(root).read(start, Math.min(length, limits.guestTextBytesMax));
  const texts = (bytes?.toString('utf8') ?? '').split('\0').filter((text) => text !== '');
  return texts.map((text) => printableLine(text, 300));
}

function openFiles(kernel: GuestKernel, task: bigint): string[] {
  const files = kernel.pointer(task, 'task_struct', 'files');
  if (files === 0n) return [];
  const table = kernel.pointer(files, 'files_struct', 'fdt');
  const count = Math.min(Number(kernel.number(table, 'fdtable', 'max_fds')), limits.guestFilesMax);
  const places = kernel.read(kernel.pointer(table, 'fdtable', 'fd'), count * 8);
  const found: string[] = [];
  for (let fd = 0; places !== undefined && fd < count; fd++) {
    const file = places.readBigUInt64LE(fd * 8);
    if (file === 0n) continue;
    const path = pathOf(kernel, file + BigInt(kernel.field('file', 'f_path').offset));
    found.push(`${fd}: ${path}`);
  }
  return found;
}

/**
 * Processes that have ended: the kernel frees what described them and does not clear it. What is taken for one points
 * to a scheduling class of this kernel, and has a number, a name and a time that can be.
 */
export function findExited(kernel: GuestKernel, known: readonly GuestProcess[]): GuestProcess[] {
  const at = kernel.field('task_struct', 'sched_class').offset;
  const pidAt = kernel.field('task_struct', 'pid').offset;
  const size = kernel.sizeOf('task_struct');
  const seen = new Set(known.map(({ pid, startedNanos }) => `${pid} ${startedNanos}`));
  const found: GuestProcess[] = [];
  const { memory } = kernel.space;
  const linear = kernel.word(kernel.symbol('page_offset_base'), 8);
  const fair = Buffer.alloc(8);
  fair.writeBigUInt64LE(kernel.symbol('fair_sched_class'));
  for (const [page, bytes] of memory.changed) {
    if (found.length >= limits.guestProcessesMax) break;
    for (let hit = bytes.indexOf(fair); hit !== -1; hit = bytes.indexOf(fair, hit + 8)) {
      if (hit % 8 !== 0) continue;
      const task = linear + BigInt(memory.addressOf(page) + hit - at);
      if (kernel.read(task, size) === undefined) continue;
      const [pid, basic] = [Number(kernel.word(task + BigInt(pidAt), 4)), identify(kernel, task)];
      const likely = pid > 0 && pid === basic.pid && pid < 4_194_304 && /^[ -~]{1,15}$/.test(basic.name)
        && basic.startedNanos > 0n && basic.startedNanos < 1n << 55n;
      const key = `${pid} ${basic.startedNanos}`;
      if (!likely || seen.has(key)) continue;
      seen.add(key);
      found.push({ ...basic, state: 'exited', threads: 0, program: '', arguments: [], files: [], ofKernel: false });
    }
  }
  return found.sort((a, b) => (a.startedNanos < b.startedNanos ? -1 : 1));
}

