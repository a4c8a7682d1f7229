/** guest/images/NAME.json: what a base image contains and how a function is started in it. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FunctionClass, ImageManifest } from '../../src/image/manifest.ts';

export const RECIPES = 'guest/images';

export interface Recipe {
  readonly name: string;
  readonly description: string;
  /** Packages to start from; what they depend on comes with them. */
  readonly packages: readonly string[];
  /** Packages that nothing in the image needs although others depend on them. */
  readonly without: readonly string[];
  /** Paths that are left out, tar patterns that begin with `./`. */
  readonly exclude: readonly string[];
  /** `node`: the Node that Mayfly itself runs on. `bytecode`: Python modules are compiled ahead. */
  readonly add: readonly ('node' | 'bytecode')[];
  /** Folder of guest/runtime that goes to /usr/lib/mayfly, its C sources as Node addons; null when there is none. */
  readonly shim: string | null;
  /** Warm language runtime; null when the image only runs executables. */
  readonly runtime: { readonly argv: readonly string[]; readonly env: readonly string[] } | null;
  /** These go into the image's manifest, and are checked there. */
  readonly classes: readonly FunctionClass[];
  readonly variant: ImageManifest['variant'];
  readonly serves: ImageManifest['serves'];
  readonly policy: ImageManifest['policy'];
}

/** All recipes of a checkout, by name. */
export async function readRecipes(root: string): Promise<Recipe[]> {
  const files = (await readdir(join(root, RECIPES))).filter((file) => file.endsWith('.json')).sort();
  return await Promise.all(
    files.map(async (file) => {
      const recipe = parseRecipe(await readFile(join(root, RECIPES, file), 'utf8'), file);
      if (`${recipe.name}.json` !== file) throw new Error(`${file} names the image ${recipe.name}`);
      return recipe;
    }),
  );
}

const FIELDS = [
  'name', 'description', 'packages', 'without', 'exclude', 'add', 'shim', 'runtime', 'classes', 'variant', 'serves',
  'policy',
];

/** Throws on anything that is not exactly a recipe: a misspelt field would silently change an image. */
export function parseRecipe(text: string, file: string): Recipe {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null) throw new Error(`${file} is not an object`);
  const given = Object.keys(value).sort().join(' ');
  if (given !== [...FIELDS].sort().join(' ')) throw new Error(`${file} has the fields ${given}`);
  const recipe = value as Recipe;
  const lists = [recipe.packages, recipe.without, recipe.exclude, recipe.add];
  const runtime = recipe.runtime === null ? [] : [recipe.runtime.argv, recipe.runtime.env];
  for (const list of [...lists, ...runtime]) {
    const texts = Array.isArray(list) && list.every((item) => typeof item === 'string' && item !== '');
    if (!texts) throw new Error(`${file}: a list of texts is something else`);
  }
  const name = /^[a-z][a-z0-9-]{0,30}$/;
  if (!name.test(recipe.name)) throw new Error(`${file}: ${recipe.name} is no name for an image`);
  if (recipe.shim !== null && !name.test(recipe.shim)) throw new Error(`${file}: ${recipe.shim} is no shim`);
  return recipe;
}
