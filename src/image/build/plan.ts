/** What a Mayflyfile's instructions come to: what is copied where, and how the image is started. Pure. */
import { posix } from 'node:path';
import { printableLine } from '../../core/json.ts';
import { substitute, wordsOf } from './file.ts';
import type { Instruction, Refuse } from './file.ts';

export interface Copy {
  readonly line: number;
  /** Relative to the context; `''` is all of it. */
  readonly sources: readonly string[];
  /** Absolute path in the image. */
  readonly target: string;
  /** It was written with a slash at its end, so it is a folder whatever is there. */
  readonly intoFolder: boolean;
  /** Permission bits for all of it. */
  readonly mode: number | undefined;
}

export interface BuildPlan {
  readonly copies: readonly Copy[];
  /** Undefined: as in the base. */
  readonly entrypoint: readonly string[] | undefined;
  readonly cmd: readonly string[] | undefined;
  readonly commandLine: number;
  /** What the file sets, in its order. */
  readonly env: ReadonlyMap<string, string>;
  readonly workingDir: string;
  readonly description: string | undefined;
  /** What was understood and is not honoured. */
  readonly notes: readonly string[];
}

/** Image of the first instruction; undefined for `scratch`. Throws E_BUILD_FILE and E_IMAGE_UNSUPPORTED. */
export function baseOf([first]: readonly Instruction[], refuse: Refuse): string | undefined {
  if (first === undefined || first.name !== 'FROM') throw refuse(first?.line ?? 1, 'a file begins with FROM');
  const { line, flags, text } = first;
  const platform = flags.get('platform');
  if (platform !== undefined && platform !== 'linux/amd64') {
    throw refuse(line, `--platform=${platform}: images are for linux/amd64`, 'E_IMAGE_UNSUPPORTED');
  }
  const [name = '', ...more] = text.split(/\s+/);
  if (name === '') throw refuse(line, 'FROM needs the name of an image, or scratch');
  if (more.length > 0) throw refuse(line, 'a file has one stage: FROM takes one name', 'E_IMAGE_UNSUPPORTED');
  return name === 'scratch' ? undefined : name;
}

/** Every clone has its own there: nothing that an image has is seen. */
const OWN_OF_CLONES: readonly string[] = ['/dev', '/proc', '/sys', '/tmp', '/function'];

const WITHOUT_MEANING: ReadonlySet<string> = new Set(['EXPOSE', 'STOPSIGNAL', 'MAINTAINER', 'VOLUME', 'HEALTHCHECK']);
const DESCRIPTION = 'org.opencontainers.image.description';

class Planner {
  readonly copies: Copy[] = [];
  readonly notes: string[] = [];
  readonly #set = new Map<string, string>();
  readonly #env: Map<string, string>;
  readonly #refuse: Refuse;
  workingDir: string;
  entrypoint: readonly string[] | undefined;
  cmd: readonly string[] | undefined;
  commandLine = 1;
  description: string | undefined;

  constructor(base: { readonly env: ReadonlyMap<string, string>; readonly workingDir: string }, refuse: Refuse) {
    this.#env = new Map(base.env);
    this.workingDir = base.workingDir;
    this.#refuse = refuse;
  }

  get env(): ReadonlyMap<string, string> {
    return this.#set;
  }

  add(instruction: Instruction): void {
    const { name, line, flags, text } = instruction;
    const unknown = [...flags.keys()].find((flag) => !(flag === 'chmod' && (name === 'COPY' || name === 'ADD')));
    if (unknown !== undefined) throw this.#refuse(line, `--${unknown} is not supported`, 'E_IMAGE_UNSUPPORTED');
    if (text === '') throw this.#refuse(line, `${name} needs something`);
    switch (name) {
      case 'COPY':
      case 'ADD':
        return this.#copy(instruction);
      case 'ENV':
        return this.#setEnv(instruction);
      case 'WORKDIR':
        this.workingDir = this.#absolute(this.#filled(text, line), line);
        return;
      case 'ENTRYPOINT':
        this.entrypoint = this.#command(instruction);
        // As in docker: what the base would have been given as arguments was meant for its own program.
        this.cmd ??= [];
        return;
      case 'CMD':
        this.cmd = this.#command(instruction);
        return;
      case 'LABEL':
        return this.#label(instruction);
      case 'USER':
        if (!/^(?:1000|function)(?::(?:1000|function))?$/.test(text)) {
          const user = printableLine(text, 40);
          this.notes.push(`line ${line}: USER ${user} is not honoured: every function runs as uid 1000`);
        }
        return;
      case 'RUN':
        throw this.#refuse(
          line,
          'RUN is not supported: no program of an image runs while it is built. Put its result into the directory',
          'E_IMAGE_UNSUPPORTED',
        );
      case 'FROM':
        throw this.#refuse(line, 'a file has one stage: a second FROM is not supported', 'E_IMAGE_UNSUPPORTED');
      default:
        if (!WITHOUT_MEANING.has(name)) throw this.#refuse(line, `${name} is not supported`, 'E_IMAGE_UNSUPPORTED');
        this.notes.push(`line ${line}: ${name} means nothing for a function and is left out`);
    }
  }

  #copy({ name, line, flags, list, text }: Instruction): void {
    const words = (list ?? wordsOf(text, line, this.#refuse)).map((word) => this.#filled(word, line));
    const target = words.at(-1) ?? '';
    const sources = words.slice(0, -1);
    if (sources.length === 0) throw this.#refuse(line, `${name} needs what to copy, and where to`);
    const intoFolder = target.endsWith('/') || target === '.' || target === '';
    if (sources.length > 1 && !intoFolder) throw this.#refuse(line, 'several sources need a target that ends with /');
    const chmod = flags.get('chmod');
    if (chmod !== undefined && !/^0?[0-7]{3}$/.test(chmod)) throw this.#refuse(line, `--chmod=${chmod}: not like 755`);
    const absolute = this.#absolute(target, line);
    const own = OWN_OF_CLONES.find((folder) => absolute === folder || absolute.startsWith(`${folder}/`));
    if (own !== undefined) throw this.#refuse(line, `every clone has a ${own} of its own, so nothing can be put there`);
    this.copies.push({
      line,
      sources: sources.map((source) => this.#source(name, source, line)),
      target: absolute,
      intoFolder,
      mode: chmod === undefined ? undefined : Number.parseInt(chmod, 8),
    });
  }

  #source(name: string, source: string, line: number): string {
    if (/^(?:[a-z]+:\/\/|git@)/i.test(source)) {
      throw this.#refuse(line, `${name} of an address is not supported`, 'E_IMAGE_UNSUPPORTED');
    }
    if (/[*?[\]]/.test(source)) {
      throw this.#refuse(line, `${source}: patterns are not supported`, 'E_IMAGE_UNSUPPORTED');
    }
    const path = posix.normalize(posix.join('/', source));
    // `/../x` is `/x` to the line above: only what climbs is an error of its author.
    if (posix.normalize(source).split('/').includes('..')) throw this.#refuse(line, `${source} leaves the directory`);
    return path.slice(1).replace(/\/$/, '');
  }

  #setEnv({ line, text }: Instruction): void {
    const [, single, rest = ''] = /^([A-Za-z_][A-Za-z0-9_]*)\s+(.*)$/s.exec(text) ?? [];
    const pairs = single === undefined ? wordsOf(text, line, this.#refuse) : [`${single}=${rest}`];
    for (const pair of pairs) {
      const [, name = '', value = ''] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(pair) ?? [];
      if (name === '') throw this.#refuse(line, `${printableLine(pair, 40)} is not NAME=value`);
      const filled = this.#filled(value, line);
      this.#env.set(name, filled);
      this.#set.set(name, filled);
    }
  }

  #label({ line, text }: Instruction): void {
    for (const pair of wordsOf(text, line, this.#refuse)) {
      const at = pair.indexOf('=');
      if (at < 1) throw this.#refuse(line, `${printableLine(pair, 40)} is not NAME=value`);
      if (pair.slice(0, at) === DESCRIPTION) this.description = printableLine(pair.slice(at + 1), 300);
    }
  }

  #command({ line, list, text }: Instruction): readonly string[] {
    this.commandLine = line;
    return list ?? ['/bin/sh', '-c', text];
  }

  #filled(text: string, line: number): string {
    return substitute(text, this.#env, line, this.#refuse);
  }

  #absolute(path: string, line: number): string {
    const whole = posix.normalize(posix.join('/', path.startsWith('/') ? path : `${this.workingDir}/${path}`));
    if (/[\p{Cc}]/u.test(whole)) throw this.#refuse(line, 'a path has control characters');
    return whole === '/' ? whole : whole.replace(/\/$/, '');
  }
}

/** Throws E_BUILD_FILE and E_IMAGE_UNSUPPORTED, naming the line. */
export function planBuild(
  [, ...instructions]: readonly Instruction[],
  base: { readonly env: ReadonlyMap<string, string>; readonly workingDir: string },
  refuse: Refuse,
): BuildPlan {
  const planner = new Planner(base, refuse);
  for (const instruction of instructions) planner.add(instruction);
  return planner;
}
