/** Reacts to a changed row: here it only says what changed. */
export default async ({ data }) => ({ table: data.table, changed: Object.keys(data.row) });
