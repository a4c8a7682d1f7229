/**
 * The file that `docker save` and `skopeo copy … docker-archive:` write: a tar archive of layers with a list beside
 * them. It is read where it is; of every layer only the place inside it is remembered. Its layers have no digest of
 * their own: the configuration names the digest of each as a plain archive, and the configuration's own digest names
 * the image.
 */
import { extract } from 'tar-stream';
import type { Header } from 'tar-stream';
import { MayflyError } from '../../core/errors.ts';
import { digestOf, printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { corrupt, parseArchiveList, parseConfig } from './documents.ts';
import type { ArchiveImage } from './documents.ts';
import { drained } from './flow.ts';
import { readFile } from './layout.ts';
import { cleanPath } from './path.ts';
import { collect, requirePlatform } from './source.ts';
import type { OpenedImage } from './source.ts';

interface Place {
  readonly start: number;
  readonly size: number;
}

/** tar-stream's header has it, its type does not. */
type PlacedHeader = Header & { readonly byteOffset: number };

/** Rejects with E_IMAGE_SOURCE, E_IMAGE_CORRUPT, E_IMAGE_PLATFORM, E_IMAGE_TOO_LARGE or E_IMAGE_UNSUPPORTED. */
export async function openArchive(file: string, tag: string | undefined): Promise<OpenedImage> {
  await refuseCompressed(file);
  const places = await placesIn(file);
  const read = async (path: string): Promise<Buffer> => {
    const { start, size } = find(places, path, file);
    if (size > limits.ociDocumentBytesMax) throw corrupt(path, `it is a document of ${size} bytes`);
    return await collect(readFile(file, start, size), size, path);
  };
  const image = choose(parseArchiveList(await read('manifest.json')), tag, file);
  const bytes = await read(image.config);
  const config = parseConfig(bytes);
  requirePlatform(config);
  const { layers } = image;
  if (layers.length !== config.diffIds.length) {
    throw corrupt(file, `it has ${layers.length} layers, its configuration ${config.diffIds.length}`);
  }
  return {
    digest: digestOf(bytes),
    config,
    layers: layers.map((path, index) => {
      const { start, size } = find(places, path, file);
      return {
        name: `layer ${index + 1} of ${layers.length}`,
        digest: undefined,
        size,
        diffId: config.diffIds[index] ?? '',
        open: () => readFile(file, start, size),
      };
    }),
  };
}

async function refuseCompressed(file: string): Promise<void> {
  const head = await collect(readFile(file, 0, 4), 4, file);
  const compressed = [0x1f8b, 0x28b5, 0xfd37, 0x425a].includes(head.length < 2 ? 0 : head.readUInt16BE(0));
  if (!compressed) return;
  throw new MayflyError(
    'E_IMAGE_UNSUPPORTED',
    `${file} is compressed as a whole, so nothing in it can be found again.`,
    {
      remedy: 'Decompress it first, for example with `gunzip --keep FILE`.',
    },
  );
}

function choose(images: readonly ArchiveImage[], tag: string | undefined, file: string): ArchiveImage {
  const fitting = tag === undefined ? images : images.filter(({ tags }) => tags.includes(tag));
  const [only] = fitting;
  if (only !== undefined && fitting.length === 1) return only;
  const tags = printableLine(images.flatMap((image) => image.tags).join(', '), 300);
  throw new MayflyError('E_IMAGE_SOURCE', `${file} has ${images.length} images; name one of its tags: ${tags}`);
}

function find(places: ReadonlyMap<string, Place | string>, path: string, file: string): Place {
  let place = places.get(path);
  // Older archives have one file for equal layers, and links to it.
  if (typeof place === 'string') place = places.get(place);
  if (place === undefined || typeof place === 'string')
    throw corrupt(file, `there is no ${printableLine(path, 200)} in it`);
  return place;
}

/** Name of each file to its place, and of each link to the name that it stands for. */
async function placesIn(file: string): Promise<Map<string, Place | string>> {
  const places = new Map<string, Place | string>();
  const tar = extract();
  const feeding = (async () => {
    for await (const chunk of readFile(file)) {
      if (tar.destroyed) return;
      if (!tar.write(chunk)) await drained(tar);
    }
    tar.end(undefined);
  })();
  feeding.catch((thrown: Error) => tar.destroy(thrown));
  try {
    for await (const entry of tar) {
      const { name, type, size, linkname, byteOffset } = entry.header as PlacedHeader;
      if (places.size >= limits.ociArchiveFilesMax)
        throw corrupt(file, 'it has too many files for an archive of images');
      const path = cleanPath(name);
      if (type === 'file') places.set(path, { start: byteOffset, size });
      else if (type === 'symlink') places.set(path, linked(path, linkname));
      else if (type === 'link') places.set(path, cleanPath(linkname));
      for await (const _content of entry);
    }
    await feeding;
  } catch (thrown) {
    tar.destroy(null);
    if (thrown instanceof MayflyError) throw thrown;
    throw corrupt(file, (thrown as Error).message);
  }
  return places;
}

/** `../DIGEST/layer.tar` as seen from a link's own folder. */
function linked(path: string, target: string): string {
  const parts = path.split('/').slice(0, -1);
  for (const part of target.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}
