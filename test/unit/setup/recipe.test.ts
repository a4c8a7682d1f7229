/** The descriptions of base images are exact: a misspelt field must not quietly change an image. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseRecipe, readRecipes } from '../../../scripts/setup/recipe.ts';

const root = join(import.meta.dirname, '../../..');

const recipe = {
  name: 'x', description: 'X', packages: ['libc6'], without: [], exclude: [], add: [], shim: null,
  runtime: { argv: ['/usr/bin/x'], env: [] }, classes: ['compute'], variant: 'standard',
  serves: { contentTypes: [], eventTypes: [] }, policy: { seccomp: 'compute', appArmor: 'compute' },
};

test('the recipes of the checkout can be read, and the shims that they name are there', async () => {
  const recipes = await readRecipes(root);
  assert.deepEqual(recipes.map(({ name }) => name), [
    'analysis', 'database', 'document', 'image', 'node', 'python', 'shell-strict', 'shell', 'web',
  ]);
  for (const { name, shim } of recipes) {
    if (shim !== null) assert.ok(existsSync(join(root, 'guest/runtime', shim)), `${name} needs ${shim}`);
  }
});

test('a complete recipe is taken as it is', () => {
  assert.deepEqual(parseRecipe(JSON.stringify(recipe), 'x.json'), recipe);
  assert.equal(parseRecipe(JSON.stringify({ ...recipe, runtime: null }), 'x.json').runtime, null);
});

test('anything else is refused', () => {
  const { without: _, ...missing } = recipe;
  const wrong: unknown[] = [
    null, [], 'x', missing,
    { ...recipe, pakages: [] },
    { ...recipe, packages: 'libc6' },
    { ...recipe, packages: [''] },
    { ...recipe, name: '../x' },
    { ...recipe, shim: '../agent' },
    { ...recipe, runtime: { argv: ['/usr/bin/x'] } },
  ];
  for (const value of wrong) assert.throws(() => parseRecipe(JSON.stringify(value), 'x.json'), JSON.stringify(value));
});
