// What is typed into the form of a service message, understood. Pure.

/** Names apart by spaces, commas or lines, each once. */
export const namesOf = (text: string): string[] => [...new Set(text.split(/[\s,;]+/).filter((name) => name !== ''))];

/** The body: JSON, or the text itself. */
export function bodyOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
