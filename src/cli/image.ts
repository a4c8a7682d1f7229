/** `mayfly image …`: what the commands print. What they do is behind App.images(). */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { StockedTemplate } from '../clone/stock.ts';
import type { CatalogueImage } from '../image/catalogue.ts';
import type { Envelope, Trust } from '../image/envelope.ts';
import type { TransferWatch } from '../image/layout.ts';
import { printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';
import { jsonProblem } from './report.ts';
import { formatBytes } from './units.ts';

export interface Output {
  readonly json?: boolean;
}

export interface Allowances {
  readonly allowUnsigned?: boolean;
  readonly allowDowngrade?: boolean;
}

/** Exit 3 when something in the repository cannot be believed. */
export async function list(io: Io, { json }: Output): Promise<number> {
  const { images, problems } = await (await admin(io)).catalogue.list();
  if (json === true) {
    const told = problems.map(({ what, error }) => ({ what, error: jsonProblem(error) }));
    printJson(io, { images: images.map(summary), problems: told });
  } else {
    const rows = images.map(({ digest, manifest, tags, trust }) => [
      tags.join(' ') || `(${manifest.name})`, digest.slice(7, 19), formatBytes(sizeOf(manifest)), wordOf(trust),
      manifest.classes.join(' '), manifest.description,
    ]);
    io.out(table([['TAGS', 'DIGEST', 'SIZE', 'SIGNED', 'CLASSES', 'DESCRIPTION'], ...rows]));
    for (const { what, error } of problems) io.err(`${what}  ${error.code}: ${error.message}\n`);
  }
  return problems.length === 0 ? exitCodes.ok : exitCodes.environment;
}

export async function show(io: Io, reference: string, { json }: Output): Promise<number> {
  const { catalogue } = await admin(io);
  const { digest } = await catalogue.find(reference, { allowUnsigned: true });
  const image = (await catalogue.list()).images.find((it) => it.digest === digest);
  if (image === undefined) throw new MayflyError('E_IMAGE_UNKNOWN', `${reference} was removed meanwhile.`);
  const { manifest, trust, tags } = image;
  if (json === true) {
    printJson(io, { digest, tags, trust, manifest });
    return exitCodes.ok;
  }
  const { runtime, policy, serves, kernel, fileSystem, packages } = manifest;
  io.out(table([
    ['name', manifest.name],
    ['description', manifest.description],
    ['digest', digest],
    ['tags', tags.join(' ') || 'none'],
    ['signed', wordOf(trust)],
    ['classes', `${manifest.classes.join(' ')} (${manifest.variant})`],
    ['runs', runtime === null ? 'executables' : `warm ${runtime.argv.join(' ')}`],
    ['serves', [...serves.contentTypes, ...serves.eventTypes].join(' ') || 'any event'],
    ['policy', `seccomp ${policy.seccomp}, AppArmor ${policy.appArmor}`],
    ['needs', `Linux ${kernel.minimum}, ${manifest.platform.os}/${manifest.platform.architecture}`],
    ['file system', `${fileSystem.type} ${fileSystem.digest} (${formatBytes(fileSystem.bytes)})`],
    ['layers', String(manifest.layers.length)],
    ['made', `${manifest.created} by ${manifest.origin} from ${manifest.inputs}`],
    ...packages.map(({ name, version }, at) => [at === 0 ? 'packages' : '', `${name} ${version}`]),
  ]));
  return exitCodes.ok;
}

/** Exit 3 when an image is not what it says. */
export async function verify(io: Io, reference: string | undefined, { json }: Output): Promise<number> {
  const { catalogue } = await admin(io);
  const listing = await catalogue.list();
  const found = reference === undefined ? undefined : await catalogue.find(reference, { allowUnsigned: true });
  const digest = found?.digest;
  const wanted = listing.images.filter((image) => digest === undefined || image.digest === digest);
  const watch = watchOf(io, 'reading');
  watch.total(wanted.reduce((sum, { manifest }) => sum + sizeOf(manifest), 0));
  const judged: { what: string; error: MayflyError | undefined }[] = digest === undefined ? [...listing.problems] : [];
  for (const image of wanted) {
    io.signal.throwIfAborted();
    const what = `${image.tags[0] ?? image.manifest.name} ${image.digest.slice(7, 19)}`;
    const trusted = await problemOf(catalogue.requireTrust(image, {}));
    const error = trusted ?? (await problemOf(catalogue.requireIntact(image, 'full', watch.passed)));
    judged.push({ what, error });
  }
  const bad = judged.filter(({ error }) => error !== undefined);
  if (json === true) {
    const images = judged.map(({ what, error }) => ({ what, error: error === undefined ? null : jsonProblem(error) }));
    printJson(io, { ok: bad.length === 0, images });
  } else {
    io.out(table(judged.map(({ what, error }) => [error?.code ?? 'intact', what, error?.message ?? ''])));
  }
  return bad.length === 0 ? exitCodes.ok : exitCodes.environment;
}

export async function tag(io: Io, reference: string, name: string, options: Output & Allowances): Promise<number> {
  const envelope = await (await admin(io)).catalogue.tag(reference, name, allowances(options));
  return done(io, options, { tag: name, digest: envelope.digest }, `${name} is ${envelope.digest}`);
}

export async function untag(io: Io, name: string, options: Output): Promise<number> {
  const there = await (await admin(io)).catalogue.untag(name);
  if (!there) throw new MayflyError('E_IMAGE_UNKNOWN', `There is no tag ${name}.`);
  return done(io, options, { tag: name }, `${name} names nothing any more`);
}

export async function remove(io: Io, reference: string, options: Output): Promise<number> {
  const { digest, tags } = await (await admin(io)).catalogue.remove(reference);
  return done(io, options, { digest, tags }, `removed ${digest}, which was ${tags.join(', ') || 'without a tag'}`);
}

export interface CollectOptions extends Output {
  readonly dryRun?: boolean;
  readonly all?: boolean;
}

export async function collect(io: Io, { json, dryRun = false, all = false }: CollectOptions): Promise<number> {
  const graceMillis = all ? 0 : limits.imageGraceMillis;
  // First: a template keeps the image that it was made from.
  const templates = await collectTemplates(io, dryRun);
  const gone = await (await admin(io)).collect({ dryRun, graceMillis });
  const bytes = gone.bytes + templates.reduce((sum, template) => sum + template.bytes, 0);
  const counts = [[templates.length, 'templates'], [gone.manifests.length, 'images'], [gone.blobs.length, 'files']];
  const what = `${counts.map(([count, name]) => `${count} ${name}`).join(', ')}, ${formatBytes(bytes)}`;
  const found = { dryRun, ...gone, bytes, templates: templates.map(({ key }) => key) };
  return done(io, { json: json === true }, found, `${dryRun ? 'would remove' : 'removed'} ${what}`);
}

/** Those that nothing can ask for any more. Without QEMU nobody can say which those are, and none goes. */
async function collectTemplates(io: Io, dryRun: boolean): Promise<readonly StockedTemplate[]> {
  const app = await io.openApp();
  const stock = await app.stock().catch((thrown: unknown) => {
    if (thrown instanceof MayflyError && NO_STOCK.has(thrown.code)) return [];
    throw thrown;
  });
  const stale = stock.filter((template) => template.stale);
  return dryRun ? stale : await app.discardTemplates(stale);
}

const NO_STOCK: ReadonlySet<string> = new Set(['E_QEMU_MISSING', 'E_SETUP_MISSING']);

export async function exportImage(io: Io, reference: string, folder: string, options: Output): Promise<number> {
  const path = resolve(folder);
  const { digest } = await (await admin(io)).export(reference, path, watchOf(io, 'copying'));
  return done(io, options, { digest, folder: path }, `${digest} is in ${path}`);
}

export interface ImportOptions extends Output, Allowances {
  readonly tag?: string;
  /** Name for somebody else's image. */
  readonly as?: string;
  readonly authFile?: string;
  readonly plainHttp?: boolean;
}

/** What `mayfly image export` wrote, or anybody's image where the source says what it is. */
export async function importImage(io: Io, folder: string, options: ImportOptions): Promise<number> {
  if (/^(oci|docker-archive|docker):/.test(folder)) return await bringImage(io, folder, options);
  const named = options.tag === undefined ? {} : { tag: options.tag };
  const policy = { ...allowances(options), ...named };
  const { digest, manifest } = await (await admin(io)).import(resolve(folder), watchOf(io, 'copying'), policy);
  const name = options.tag ?? `${manifest.name}:latest`;
  return done(io, options, { digest, tag: name }, `${name} is ${digest}`);
}

async function bringImage(io: Io, source: string, options: ImportOptions): Promise<number> {
  const name = options.as;
  if (name === undefined || options.tag !== undefined) {
    throw new MayflyError('E_USAGE', 'an image of somebody else needs a name here: give one with --as NAME');
  }
  const say = (step: string): void => io.err(`mayfly: ${step} …\n`);
  const app = await io.openApp();
  const path = options.authFile ?? app.authFile();
  const authFile = path === undefined ? undefined : { path: resolve(path), required: options.authFile !== undefined };
  const registry = { authFile, plainHttp: options.plainHttp === true };
  const brought = await (await app.images()).bring(source, { name, signal: io.signal, say, registry });
  const { envelope, merged: { layers, entries, bytes, command } } = brought;
  const what = `${layers} layers, ${entries} files and folders, ${formatBytes(bytes)}`;
  const facts = { digest: envelope.digest, tag: `${name}:latest`, layers, entries, bytes, command };
  return done(io, options, facts, `${name}:latest is ${envelope.digest} (${what})`);
}

export async function sign(io: Io, reference: string, options: Output): Promise<number> {
  const { digest, signatures } = await (await admin(io)).catalogue.sign(reference);
  const keys = signatures.map(({ keyId }) => keyId);
  return done(io, options, { digest, signatures: keys }, `${digest} is signed by ${keys.join(', ')}`);
}

export interface TrustOptions extends Output {
  readonly remove?: string;
  readonly own?: boolean;
}

export async function trust(io: Io, file: string | undefined, options: TrustOptions): Promise<number> {
  const { keys } = await admin(io);
  if ([file, options.remove, options.own].filter((it) => it !== undefined).length > 1) {
    throw new MayflyError('E_USAGE', 'a file, --remove and --own exclude each other');
  }
  if (options.own === true) {
    const pem = await keys.ownPublic();
    if (options.json === true) printJson(io, { pem });
    else io.out(pem);
    return exitCodes.ok;
  }
  if (options.remove !== undefined) {
    if (!(await keys.distrust(options.remove))) throw new MayflyError('E_USAGE', `${options.remove} was not trusted`);
    return done(io, options, { keyId: options.remove }, `${options.remove} is not trusted any more`);
  }
  if (file !== undefined) {
    const pem = await readFile(file).catch((cause: unknown) => {
      throw new MayflyError('E_USAGE', `${file}: cannot be read`, { cause });
    });
    const keyId = await keys.trust(pem, file);
    return done(io, options, { keyId }, `${keyId} is trusted from now on`);
  }
  const trusted = [...(await keys.trusted()).keys()].sort();
  return done(io, options, { trusted }, trusted.join('\n') || 'no key is trusted: run `npm run setup`');
}

async function problemOf(work: Promise<void>): Promise<MayflyError | undefined> {
  try {
    await work;
    return undefined;
  } catch (thrown) {
    if (thrown instanceof MayflyError) return thrown;
    throw thrown;
  }
}

async function admin(io: Io): ReturnType<Awaited<ReturnType<Io['openApp']>>['images']> {
  return await (await io.openApp()).images();
}

function allowances({ allowUnsigned = false, allowDowngrade = false }: Allowances): Required<Allowances> {
  return { allowUnsigned, allowDowngrade };
}

function sizeOf({ fileSystem, layers }: Envelope['manifest']): number {
  return [fileSystem, ...layers].reduce((sum, { bytes }) => sum + bytes, 0);
}

function summary({ digest, manifest, trust: word, tags }: CatalogueImage): object {
  const { name, description, classes, variant, runtime, origin, created } = manifest;
  const described = { description, classes, variant, runtime, origin, created };
  return { name, digest, tags, trust: word, bytes: sizeOf(manifest), ...described };
}

function wordOf(word: Trust): string {
  switch (word.kind) {
    case 'signed':
      return `by ${word.keyId.slice(7, 15)}`;
    case 'unknown':
      return 'by a stranger';
    case 'unsigned':
      return 'no';
    case 'wrong':
      return 'WRONGLY';
  }
}

function done(io: Io, { json }: Output, value: object, text: string): number {
  if (json === true) printJson(io, value);
  else io.out(`${text}\n`);
  return exitCodes.ok;
}

/** A line on a terminal that counts; nothing in a log. */
function watchOf(io: Io, verb: string): TransferWatch {
  let [all, sum, shown] = [0, 0, -1];
  return {
    signal: io.signal,
    total: (bytes) => {
      all = bytes;
      if (!io.errIsTerminal) io.err(`${verb} ${formatBytes(bytes)}\n`);
    },
    passed: (bytes) => {
      sum += bytes;
      const percent = Math.floor((100 * sum) / Math.max(all, 1));
      if (!io.errIsTerminal || percent === shown) return;
      shown = percent;
      io.err(`\r${verb} ${formatBytes(all)}  ${percent} %${sum >= all ? '\n' : ''}`);
    },
  };
}
