// Numbers in words; independent of the page and the network.

/** A share as a whole number of hundred. */
export const ofHundred = (share) => Math.round(share * 100);

/** "77 of 100 (95 % interval 70 to 84)"; `flip` counts the remaining ones. */
function counted({ value, low, high }, flip = false) {
  const [middle, from, to] = flip ? [1 - value, 1 - high, 1 - low] : [value, low, high];
  return `${ofHundred(middle)} of 100 (95 % interval ${ofHundred(from)} to ${ofHundred(to)})`;
}

/** The reliability of such an answer on the card's test slices; "" if the card does not have it. */
export function worth(label, card) {
  const { precision, sensitivity, specificity } = card.test_metrics;
  const mix = "With another mix of patients it is another number.";
  if (label === card.positive_label) {
    if (precision) return `Of the test slices that it called ${label}, ${counted(precision)} were. ${mix}`;
    if (specificity) return `Of the test slices that were not ${label}, it called ${counted(specificity, true)} ${label} nevertheless.`;
  } else if (sensitivity) {
    return `Of the ${card.positive_label} slices in the test, it missed ${counted(sensitivity, true)}: this answer rules nothing out.`;
  }
  return "";
}

/** The verdict in a few words, and its kind: yes, no or none. */
export function verdict(answer, card) {
  if (answer.out_of_distribution.flagged) return { kind: "none", text: `No verdict: ${REASONS[answer.out_of_distribution.reason] ?? "this picture is not read as a slice"}` };
  const positive = answer.probability >= answer.threshold;
  const kind = positive ? "yes" : "no";
  const side = positive ? "at or above" : "below";
  return { kind, text: `${shown(answer.label, card)}: ${side} the threshold` };
}

const REASONS = {
  no_lungs: "no lungs were found",
  wrong_window: "the lungs show no detail in this window",
  several_panels: "the picture shows several slices",
};

/** "Lesions in 12 % of the lungs (left 20 %, right 5 %)"; "" for a model that does not find lungs. */
export function involvement({ lung_involvement: found }) {
  if (!found) return "";
  const { both, left, right } = found;
  return `Lesions in ${ofHundred(both)} % of the lung area of this slice (left lung ${ofHundred(left)} %, right lung ${ofHundred(right)} %)`;
}

const shown = (label, card) => (card && label !== card.positive_label ? `Not ${card.positive_label}` : label);

/** "240 ms (file 4, queue 0, network 223)" */
export function timing(milliseconds) {
  const total = Object.values(milliseconds).reduce((sum, each) => sum + each, 0);
  const { decode, queue, inference } = milliseconds;
  const whole = (number) => (number < 10 ? number.toFixed(1) : number.toFixed(0));
  return `${whole(total)} ms in the service: decoding ${whole(decode)}, waiting ${whole(queue)}, network ${whole(inference)}`;
}

const ADVICE = {
  unsupported_image_type: "This is not an image the service reads",
  damaged_image: "This file is damaged",
  empty_file: "This file is empty",
  image_too_small: "This image is too small",
  too_many_pixels: "This image is too large",
  body_too_large: "This file is too large",
  several_frames: "This file holds several images",
  unreadable_file: "The browser could not read this file",
  unreachable: "The service could not be reached",
};

/** A headline for a problem. */
export const headline = (problem) => ADVICE[problem.code] ?? problem.title;
