/**
 * Real machines: templates and clones as QEMU processes.
 *
 * A template is booted with its RAM in a shared file, prepared over the bridge, stopped, and its device state saved by
 * QEMU's migration with `x-ignore-shared` (RAM stays in its file). A clone is a new process of the same machine that
 * maps that file copy-on-write and is given the state through an inherited descriptor.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { chown, mkdir, open, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { MayflyError } from '../../core/errors.ts';
import type { ErrorCode } from '../../core/errors.ts';
import { limits } from '../../core/limits.ts';
import { within } from '../../core/time.ts';
import { consoleDetail } from '../console.ts';
import type { Machine, Prepare, TemplateSpec, TemplateState, Vmm } from './contract.ts';
import { descriptors } from './machine.ts';
import { QemuProcess } from './process.ts';
import type { QemuOptions } from './process.ts';
import { QmpError } from './qmp.ts';

export type { QemuOptions } from './process.ts';

export function createQemu(options: QemuOptions): Vmm {
  return {
    isolation: options.accelerator,
    version: options.version,
    buildTemplate: (spec, prepare) => buildTemplate(options, spec, prepare),
    spawn: (template) => spawnClone(options, template),
  };
}

/** Boots a machine, runs `prepare` and kills it: the trial boot of an accelerator, and cold boots for benchmarks. */
export async function bootOnce(options: QemuOptions, spec: TemplateSpec, prepare: Prepare): Promise<void> {
  const ram = join(spec.folder, 'ram');
  try {
    const machine = await bootTemplate(options, spec, ram, prepare);
    await machine.kill();
  } finally {
    await rm(ram, { force: true });
  }
}

async function buildTemplate(options: QemuOptions, spec: TemplateSpec, prepare: Prepare): Promise<TemplateState> {
  const ram = join(spec.folder, 'ram');
  const machine = await bootTemplate(options, spec, ram, prepare);
  try {
    await machine.qmp.execute('stop');
    const state = await saveState(options, machine, spec.folder);
    await machine.kill();
    await sealRam(options, ram);
    return { ...spec, ram, state };
  } catch (thrown) {
    throw await explain(machine, 'E_TEMPLATE_BUILD', thrown);
  } finally {
    await machine.kill();
  }
}

async function spawnClone(options: QemuOptions, template: TemplateState): Promise<Machine> {
  const slot = options.jail.take();
  let machine: QemuProcess;
  try {
    machine = await QemuProcess.launch(options, { spec: template, ram: template.ram, role: 'clone', slot });
  } catch (thrown) {
    throw wrap('E_CLONE_FAILED', thrown, '');
  }
  try {
    await machine.load(template.state);
    return machine;
  } catch (thrown) {
    throw await explain(machine, 'E_CLONE_FAILED', thrown);
  }
}

/** A running machine that has been prepared. Leaves no process when it rejects. */
async function bootTemplate(
  options: QemuOptions,
  spec: TemplateSpec,
  ram: string,
  prepare: Prepare,
): Promise<QemuProcess> {
  const slot = options.jail.take();
  const saveFolder = join(spec.folder, SAVE_FOLDER);
  await createRam(ram, spec.ramBytes, slot.gid);
  await mkdir(saveFolder, { mode: 0o700, recursive: true });
  if (slot.uid !== undefined) await chown(saveFolder, slot.uid, slot.gid ?? 0);
  let machine: QemuProcess;
  try {
    machine = await QemuProcess.launch(options, { spec, ram, role: 'template', saveFolder, slot });
  } catch (thrown) {
    throw wrap('E_TEMPLATE_BUILD', thrown, '');
  }
  try {
    await machine.resume();
    const halted = machine.halted.then((reason) => Promise.reject(new QmpError(reason)));
    await Promise.race([prepare(machine.bridge), halted]);
    return machine;
  } catch (thrown) {
    throw await explain(machine, 'E_TEMPLATE_BUILD', thrown);
  }
}

// ---- template files -----------------------------------------------------------------------------------------------

/** Below the template's folder; the VMM's uid owns it and reaches it through an inherited descriptor. */
const SAVE_FOLDER = 'save';

/** A sparse RAM image that the VMMs' group can open: the process reopens its inherited descriptor by /proc/self/fd. */
async function createRam(path: string, ramBytes: number, group: number | undefined): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.truncate(ramBytes);
    if (group === undefined) return;
    await file.chown(0, group);
    await file.chmod(0o660);
  } finally {
    await file.close();
  }
}

/**
 * RAM on disk, and closed to writing where QEMU allows it. Before 8.2 QEMU insists on opening the file for writing even
 * to map it privately; there the file's ctime is compared around every clone instead (clone/template.ts).
 */
async function sealRam(options: QemuOptions, path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await digHoles(path);
    await file.sync();
    if (options.readOnlyRam) await file.chmod(options.jail.confined ? 0o440 : 0o400);
  } finally {
    await file.close();
  }
}

/** A fifth of what a guest has touched is zero again, and need not lie on disk. Where that cannot be, it does. */
async function digHoles(path: string): Promise<void> {
  await new Promise<void>((resolve) => {
    const child = spawn('fallocate', ['--dig-holes', path], { stdio: 'ignore' });
    child.once('error', () => resolve()).once('exit', () => resolve());
  });
}

/** The device state of a stopped machine, bytes. It arrives over a socket that only the VMM's uid can reach. */
async function saveState(options: QemuOptions, machine: QemuProcess, folder: string): Promise<Buffer> {
  const saveFolder = join(folder, SAVE_FOLDER);
  // Both sides name the socket through a descriptor of its folder: socket paths are limited to 107 bytes, homes are
  // not.
  const handle = await open(saveFolder, constants.O_RDONLY | constants.O_DIRECTORY);
  const path = `/proc/self/fd/${handle.fd}/state`;
  const server = createServer();
  const received = receiveAll(server, limits.deviceStateBytesMax);
  received.catch(() => {});
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(path, resolve);
    });
    const { uid } = await handle.stat();
    if (options.jail.confined) await chown(path, uid, 0);
    await machine.migrate('migrate', `unix:/proc/self/fd/${descriptors.state}/state`);
    return await within(options.clock, limits.qmpCommandMillisMax, received, () => new QmpError('state not received'));
  } finally {
    server.close();
    await handle.close();
    await rm(saveFolder, { recursive: true, force: true });
  }
}

/** Everything that the first connection sends, up to `bytesMax`. */
function receiveAll(server: Server, bytesMax: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    server.once('connection', (socket) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      socket.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes > bytesMax) socket.destroy(new QmpError(`device state over ${bytesMax} bytes`));
      });
      socket.once('end', () => resolve(Buffer.concat(chunks)));
      socket.once('error', reject);
    });
  });
}

// ---- failures -----------------------------------------------------------------------------------------------------

/** Ends the machine and says why it failed, with the end of its console. */
async function explain(machine: QemuProcess, code: ErrorCode, thrown: unknown): Promise<MayflyError> {
  const tail = await machine.consoleTail();
  await machine.kill();
  return wrap(code, thrown, tail);
}

function wrap(code: ErrorCode, thrown: unknown, consoleTail: string): MayflyError {
  if (thrown instanceof MayflyError && thrown.code !== 'E_INTERNAL' && consoleTail === '') return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new MayflyError(code, message, { cause: thrown, ...consoleDetail(consoleTail) });
}
