/** How an image wants to be run, as a program that exists in it: what Docker decides at every start is decided once. */
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import type { ImageCommand } from '../manifest.ts';
import type { ImageConfig } from './documents.ts';
import { lookUp } from './tree.ts';
import type { TreeNode } from './tree.ts';

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Throws E_IMAGE_CORRUPT when the command is no program of the image. Null when the image names none. */
export function commandOf(config: ImageConfig, nodes: ReadonlyMap<string, TreeNode>): ImageCommand | null {
  if (config.entrypoint.length + config.cmd.length === 0) return null;
  const env = config.env.some((item) => item.startsWith('PATH=')) ? config.env : [PATH, ...config.env];
  const resolve = (words: readonly string[]): readonly string[] => {
    const [program, ...rest] = words;
    return program === undefined ? [] : [find(program, env, config.workingDir, nodes), ...rest];
  };
  if (config.entrypoint.length > 0) return { entrypoint: resolve(config.entrypoint), cmd: config.cmd, env };
  return { entrypoint: [], cmd: resolve(config.cmd), env };
}

function find(
  program: string,
  env: readonly string[],
  workingDir: string,
  nodes: ReadonlyMap<string, TreeNode>,
): string {
  const path = env.find((item) => item.startsWith('PATH='))?.slice('PATH='.length) ?? '';
  const places = program.startsWith('/')
    ? [program]
    : program.includes('/')
      ? [`${workingDir}/${program}`]
      : path.split(':').map((folder) => `${folder}/${program}`);
  const isProgram = (place: string): boolean => {
    const node = place.startsWith('/') ? lookUp(nodes, place) : undefined;
    return node?.kind === 'file' && (node.mode & 0o111) !== 0;
  };
  const found = places.find(isProgram);
  if (found !== undefined) return found;
  throw new MayflyError('E_IMAGE_CORRUPT', `Its command ${printableLine(program, 200)} is no program of the image.`);
}
