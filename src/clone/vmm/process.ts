/**
 * One QEMU process: started in its jail with inherited descriptors, controlled over QMP, killed by pid and reaped.
 *
 * Everything that the process may touch is a descriptor that it was born with (machine.ts has the numbers), so it needs
 * no path, no socket file and no permission beyond them, and a MAYFLY_HOME below root's private home works as well.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import type { Duplex, Readable, Writable } from 'node:stream';
import { MayflyError } from '../../core/errors.ts';
import { isObject, printableText } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { parseStat } from '../../core/procfs.ts';
import { within } from '../../core/time.ts';
import type { Clock } from '../../core/time.ts';
import type { Jail, JailSlot } from '../jail.ts';
import { readChangedPages } from './changed.ts';
import type { DiskRates, Machine, MachineExit, MachineMemory, ProcessIdentity, TemplateSpec } from './contract.ts';
import { descriptors, machineArguments, throttleGroup } from './machine.ts';
import { Qmp, QmpError } from './qmp.ts';
import type { QmpObject } from './qmp.ts';

export interface QemuOptions {
  /** Absolute path or name of the QEMU binary. */
  readonly binary: string;
  /** As in `QEMU 7.2.22`. */
  readonly version: string;
  readonly accelerator: 'kvm' | 'tcg';
  /** See MachineOptions.readOnlyRam. */
  readonly readOnlyRam: boolean;
  readonly jail: Jail;
  readonly clock: Clock;
}

export interface LaunchOptions {
  readonly spec: TemplateSpec;
  readonly ram: string;
  readonly role: 'template' | 'clone';
  /** Folder that the process may create a connection in, for a template to save its state; see qemu.ts. */
  readonly saveFolder?: string;
  readonly slot: JailSlot;
}

/** Text of all registers, UTF-16 units. */
const REGISTERS_MAX = 16_384;

export class QemuProcess implements Machine {
  readonly identity: ProcessIdentity;
  readonly bridge: Duplex;
  readonly exited: Promise<MachineExit>;
  /** Resolves with the reason when the guest has stopped by itself: power-off, reset or panic. */
  readonly halted: Promise<string>;
  qmp!: Qmp;
  readonly #child: ChildProcess;
  readonly #clock: Clock;
  readonly #slot: JailSlot;
  readonly #ram: { readonly ram: string; readonly ramBytes: number };
  #halt: (reason: string) => void = () => {};
  #errors = '';
  #console = '';
  #ended = false;

  private constructor(child: ChildProcess, identity: ProcessIdentity, clock: Clock, launch: LaunchOptions) {
    this.#child = child;
    this.#clock = clock;
    this.#slot = launch.slot;
    this.#ram = { ram: launch.ram, ramBytes: launch.spec.ramBytes };
    this.identity = identity;
    this.bridge = stream(child, descriptors.bridge);
    this.bridge.on('error', () => {});
    this.halted = new Promise((resolve) => {
      this.#halt = resolve;
    });
    this.exited = new Promise((resolve) => {
      child.once('exit', (exitCode, signal) => {
        this.#ended = true;
        this.#slot.release();
        this.bridge.destroy();
        this.#halt(signal === null ? `QEMU exited with status ${exitCode}` : `QEMU was ended by ${signal}`);
        resolve({ exitCode, signal });
      });
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-limits.consoleBytesMax);
    });
  }

  /** Rejects with QmpError and leaves no process. */
  static async launch(options: QemuOptions, launch: LaunchOptions): Promise<QemuProcess> {
    const child = start(options, launch);
    const pid = child.pid;
    if (pid === undefined) {
      launch.slot.release();
      throw await startFailure(child, options.binary);
    }
    const machine = new QemuProcess(child, identify(pid), options.clock, launch);
    try {
      machine.qmp = await Qmp.open({
        stream: stream(child, descriptors.qmp),
        clock: options.clock,
        onEvent: (event, data) => machine.#event(event, String(data['reason'] ?? '')),
      });
      return machine;
    } catch (thrown) {
      await machine.kill();
      throw new QmpError(`${(thrown as Error).message}; ${machine.#errors.trim() || 'QEMU said nothing'}`);
    }
  }

  async resume(): Promise<void> {
    await this.qmp.execute('cont');
  }

  async limitDisk({ readBytesPerSecond, readOperationsPerSecond }: DiskRates): Promise<void> {
    const value = { 'bps-read': readBytesPerSecond, 'iops-read': readOperationsPerSecond };
    await this.#throttle('qom-set', { value });
  }

  async diskRates(): Promise<DiskRates> {
    const found = await this.#throttle('qom-get', {});
    const rate = (name: string): number => (isObject(found) ? Number(found[name]) : Number.NaN);
    return { readBytesPerSecond: rate('bps-read'), readOperationsPerSecond: rate('iops-read') };
  }

  async #throttle(command: 'qom-set' | 'qom-get', more: QmpObject): Promise<unknown> {
    try {
      return await this.qmp.execute(command, { path: `/objects/${throttleGroup}`, property: 'limits', ...more });
    } catch (thrown) {
      throw new MayflyError('E_CLONE_FAILED', `disk rates: ${(thrown as Error).message}`, { cause: thrown });
    }
  }

  /** Runs a migration command to its end; RAM is left out of it. Rejects with QmpError. */
  async migrate(command: 'migrate' | 'migrate-incoming', uri: string): Promise<void> {
    await this.qmp.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'x-ignore-shared', state: true },
        { capability: 'events', state: true },
      ],
    });
    const ended = this.qmp.waitFor(
      (event, data) => event === 'MIGRATION' && (data['status'] === 'completed' || data['status'] === 'failed'),
      `the end of ${command}`,
    );
    ended.catch(() => {});
    await this.qmp.execute(command, { uri });
    const { status } = await ended;
    if (status !== 'completed') throw new QmpError(`${command}: ${this.#errors.trim() || String(status)}`);
  }

  /** Gives a clone its device state; it stays paused. Rejects with QmpError. */
  async load(state: Buffer): Promise<void> {
    const input = stream(this.#child, descriptors.state);
    input.on('error', () => {});
    const loaded = this.migrate('migrate-incoming', `fd:${descriptors.state}`);
    input.end(state);
    await loaded;
  }

  async freeze(): Promise<void> {
    await this.qmp.execute('stop', {}, limits.freezeMillisMax);
  }

  memory(): MachineMemory {
    const { ram, ramBytes } = this.#ram;
    return {
      ramBytes,
      base: ram,
      registers: async () => {
        const command = { 'command-line': 'info registers' };
        return String(await this.qmp.execute('human-monitor-command', command).catch(() => '')).slice(0, REGISTERS_MAX);
      },
      changed: () => readChangedPages(this.identity.pid, ram, ramBytes),
    };
  }

  async consoleTail(): Promise<string> {
    await this.#readConsole();
    const all = [this.#console, this.#errors].filter((text) => text !== '').join('\n');
    return printableText(all.slice(-limits.consoleBytesMax), limits.consoleBytesMax).trim();
  }

  async kill(): Promise<void> {
    if (!this.#ended) this.#child.kill('SIGKILL');
    await within(this.#clock, limits.reapMillisMax, this.exited, () => {
      return new MayflyError('E_RELEASE_INCOMPLETE', `VMM process ${this.identity.pid} outlived SIGKILL`);
    });
  }

  async #readConsole(): Promise<void> {
    if (this.#ended) return;
    try {
      const text = await this.qmp.execute('ringbuf-read', { device: 'console', size: limits.consoleBytesMax }, 1_000);
      this.#console = (this.#console + String(text)).slice(-limits.consoleBytesMax);
    } catch {
      // A dying VMM has no console any more; what it wrote to stderr is the next best thing.
    }
  }

  #event(event: string, reason: string): void {
    if (event === 'SHUTDOWN') this.#halt(`the guest stopped itself (${reason})`);
    if (event === 'GUEST_PANICKED') this.#halt('the guest kernel panicked');
  }
}

function start(options: QemuOptions, { spec, ram, role, saveFolder, slot }: LaunchOptions): ChildProcess {
  const command = [
    ...slot.command,
    options.binary,
    ...machineArguments({
      accelerator: options.accelerator,
      ramBytes: spec.ramBytes,
      role,
      readOnlyRam: options.readOnlyRam,
      layers: spec.layers?.length ?? 0,
    }),
  ];
  const opened: number[] = [];
  const inherit = (path: string, flags: number): number => {
    const descriptor = openSync(path, flags);
    opened.push(descriptor);
    return descriptor;
  };
  try {
    return spawn(command[0] as string, command.slice(1), {
      // No environment: QEMU needs none, and the daemon's may hold secrets. PATH finds the launchers.
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      cwd: '/',
      // Its own session: Ctrl-C on a terminal is for this process, which then ends the VM itself.
      detached: true,
      stdio: [
        'ignore',
        'ignore',
        'pipe',
        'pipe',
        'pipe',
        // A clone does not boot: what it would boot from stays outside. Node leaves an ignored descriptor closed.
        role === 'template' ? inherit(spec.kernel, constants.O_RDONLY) : 'ignore',
        role === 'template' ? inherit(spec.initramfs, constants.O_RDONLY) : 'ignore',
        inherit(spec.baseImage, constants.O_RDONLY),
        inherit(ram, constants.O_RDONLY),
        saveFolder === undefined ? 'pipe' : inherit(saveFolder, constants.O_RDONLY | constants.O_DIRECTORY),
        ...(spec.layers ?? []).map((path) => inherit(path, constants.O_RDONLY)),
      ],
    });
  } finally {
    for (const descriptor of opened) closeSync(descriptor);
  }
}

async function startFailure(child: ChildProcess, binary: string): Promise<MayflyError> {
  const cause = await new Promise<Error>((resolve) => child.once('error', resolve));
  return new MayflyError('E_QEMU_MISSING', `${binary} could not be started: ${cause.message}`, { cause });
}

/**
 * The parent's end of descriptor `index`: Node makes 'pipe' a connected AF_UNIX socket pair, which QEMU can use both
 * ways.
 */
function stream(child: ChildProcess, index: number): Duplex {
  return (child.stdio as unknown as readonly (Readable | Writable | null)[])[index] as Duplex;
}

/** The start time tells this process from a later one with the same pid. */
function identify(pid: number): ProcessIdentity {
  return { pid, startTicks: parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.startTicks ?? 0n };
}
