/**
 * `mayfly doctor`: looks at the machine and says what it means (checks.ts). Changes nothing but caches and dead runs.
 */
import { access, constants, readdir, readFile, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { App } from '../app.ts';
import { asMayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { Image } from '../image/repository.ts';
import { judge, judgeStrictly, weaknesses } from './checks.ts';
import type { Check, MachineFacts } from './checks.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';

export interface DoctorOptions {
  readonly json?: boolean;
  readonly rebuild?: boolean;
  readonly strict?: boolean;
}

/** Exit code 3 when a check fails; with `strict` also when one warns. */
export async function doctor(io: Io, { json, rebuild, strict }: DoctorOptions): Promise<number> {
  const app = await io.openApp();
  if (rebuild === true) {
    await rm(join(app.home, 'templates'), { recursive: true, force: true });
    await rm(join(app.home, 'accelerator.json'), { force: true });
    io.err('mayfly: templates and the accelerator verdict were dropped; the next run makes new ones\n');
  }
  const facts = await lookAround(app);
  const checks = strict === true ? judgeStrictly(facts) : judge(facts);
  if (json === true) printJson(io, { checks });
  else io.out(format(io, checks));
  return checks.some(({ level }) => level === 'fail') ? 3 : 0;
}

function format(io: Io, checks: readonly Check[]): string {
  const colours = paint(io.colour && io.outIsTerminal);
  const mark = { ok: colours.green('ok  '), warn: colours.yellow('warn'), fail: colours.red('FAIL') };
  const lines = checks.flatMap(({ name, level, found, remedy }) => [
    `${mark[level]}  ${name.padEnd(20)} ${found}`,
    ...(remedy === '' ? [] : [`      ${' '.repeat(20)} ${colours.cyan('→')} ${remedy}`]),
  ]);
  return `${lines.join('\n')}\n`;
}

async function lookAround(app: App): Promise<MachineFacts> {
  const qemu = await settle(app.qemu());
  const images = await settle(intactImages(app));
  const bootable = qemu.value !== undefined && images.value !== undefined;
  const engine = bootable ? (await settle(app.engine('auto'))).value : undefined;
  const { value: reclaimed, problem: notReclaimed } = await settle(app.reclaim());
  const swap = /^SwapTotal:\s+(\d+) kB/m.exec(await text('/proc/meminfo'))?.[1] ?? '0';
  return {
    node: process.versions.node,
    qemu: qemu.value,
    qemuProblem: qemu.problem,
    accelerator: engine?.accelerator,
    images: (images.value ?? []).map(({ name }) => name),
    repositoryProblem: images.problem,
    root: app.jail.confined,
    missingLaunchers: await missing(['unshare', 'prlimit', 'setpriv', 'flock']),
    apparmorParser: (await missing(['apparmor_parser'])).length === 0,
    cgroup: await cgroupSituation(),
    ksm: (await text('/sys/kernel/mm/ksm/run')).trim() === '1',
    swapBytes: Number(swap) * 1024,
    smt: (await text('/sys/devices/system/cpu/smt/active')).trim() === '1',
    vulnerable: weaknesses(await vulnerabilities()),
    freeBytes: await freeBytes(app.home),
    freeBytesNeeded: limits.diskFloorBytes + limits.memoryBytesDefault + limits.guestOverheadBytes,
    home: app.home,
    homeFolder: await stat(app.home).catch(() => undefined),
    euid: app.euid,
    endedRuns: reclaimed?.ended ?? [],
    staleRuns: reclaimed?.reports ?? [notReclaimed],
  };
}

async function intactImages(app: App): Promise<readonly Image[]> {
  const { images } = await app.repository();
  const [problem] = (await (await app.images()).catalogue.list()).problems;
  if (problem !== undefined) throw problem.error;
  return await Promise.all(images.list().map(({ name }) => images.get(name)));
}

async function settle<T>(work: Promise<T>): Promise<{ value: T | undefined; problem: string }> {
  try {
    return { value: await work, problem: '' };
  } catch (thrown) {
    const error = asMayflyError(thrown);
    return { value: undefined, problem: `${error.code}: ${error.message}` };
  }
}

async function text(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}

async function missing(programs: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    programs.map(async (program) => {
      const folders = ['/usr/bin', '/bin', '/usr/sbin', '/sbin'];
      const places = folders.map((folder) => access(join(folder, program), constants.X_OK));
      return await Promise.any(places).then(() => true, () => false);
    }),
  );
  return programs.filter((_, index) => found[index] !== true);
}

async function cgroupSituation(): Promise<string> {
  const mounts = await text('/proc/mounts');
  const v2 = /^\S+ (\S+) cgroup2 /m.exec(mounts)?.[1];
  const v1 = /^\S+ \S+ cgroup /m.test(mounts);
  if (v2 === undefined) return v1 ? 'v1 only' : 'none mounted';
  const controllers = (await text(join(v2, 'cgroup.controllers'))).trim() || 'no controllers';
  return `${v1 ? 'v1 and v2 (hybrid)' : 'v2'}; v2 has ${controllers}`;
}

/** CPU weakness to what the kernel says about it. */
async function vulnerabilities(): Promise<ReadonlyMap<string, string>> {
  const folder = '/sys/devices/system/cpu/vulnerabilities';
  const names = await readdir(folder).catch(() => []);
  return new Map(await Promise.all(names.map(async (name) => [name, await text(join(folder, name))] as const)));
}

async function freeBytes(home: string): Promise<number> {
  const found = await statfs(home).catch(() => statfs('/'));
  return found.bavail * found.bsize;
}
