// Answers and numbers in words; independent of the page and the network. Every place takes its label from here.

/** A share as a percentage with one decimal. */
export const percent = (share) => `${(share * 100).toFixed(1)} %`;

const ofHundred = (share) => Math.round(share * 100);

/** "77 of 100 (95 % interval 70 to 84)"; `flip` counts the remaining ones. */
function counted({ value, low, high }, flip = false) {
  const [middle, from, to] = flip ? [1 - value, 1 - high, 1 - low] : [value, low, high];
  return `${ofHundred(middle)} of 100 (95 % interval ${ofHundred(from)} to ${ofHundred(to)})`;
}

/** The label of an answer, as the service words it; "" if a check has failed, because the probability means nothing. */
export const labelOf = (answer) => (answer.out_of_distribution.flagged ? "" : answer.label);

/** The kind of an answer, for its colour: yes, no or none. */
export function kindOf(answer) {
  if (answer.out_of_distribution.flagged) return "none";
  const { probability, threshold, lesion_probability: lesion, lesion_threshold: least } = answer;
  return probability >= threshold && (least === null || lesion >= least) ? "yes" : "no";
}

/** Both answers whose product is the probability; "" if the model does not give them. */
export function answers({ lesion_probability: lesion, covid_given_lesion: covid }, card) {
  if (lesion === null) return "";
  const found = lesion >= (card?.lesion_thresholds.triage ?? 0.5) ? "yes" : "no";
  return `Lesions: ${found}, ${lesion.toFixed(2)}; like COVID-19 rather than other disease: ${covid.toFixed(2)}`;
}

/** A line for the label column: the label, the reason for none, or the state. */
export function outcome({ state, answer, problem }) {
  if (state === "done") return labelOf(answer) || reason(answer);
  if (state === "failed") return headline(problem);
  return { waiting: "Waiting", sending: "Examining…", cancelled: "Cancelled" }[state] ?? "";
}

/** The relation of the probability, or of the lesion probability where that decides, to the threshold. */
export function relation({ probability, threshold, lesion_probability: lesion, lesion_threshold: least }) {
  const side = (value, limit) => `${value >= limit ? "at or above" : "below"} the threshold of ${percent(limit)}`;
  return least ? `the label follows from the lesions, ${percent(lesion)}: ${side(lesion, least)}` : side(probability, threshold);
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

/** A legend of the map that is true for this answer. */
export function legend({ lungs }) {
  if (!lungs) return "Colour: how much the network looked at each place, relative to the strongest place of this slice. White line: 0.25. It compares places within a slice, not slices.";
  return "Colour: probability of lesion inside the lungs, from 0 to 1 on the same scale for every slice. White line: 0.25. Blue line: the lungs that were found.";
}

/** The result of the checks in a sentence. */
export function doubt({ out_of_distribution: { score, threshold, flagged } }, card) {
  if (card && Object.keys(card.checks).length === 0) return "This model does not check the picture.";
  const limit = `above ${threshold.toFixed(0)} there is no answer`;
  return `${flagged ? "A check of the picture" : "Highest check of the picture"}: ${score.toFixed(2)}; ${limit}.`;
}

/** "240 ms in the service: decoding 4.0, waiting 0.1, network 223" */
export function timing(milliseconds) {
  const total = Object.values(milliseconds).reduce((sum, each) => sum + each, 0);
  const { decode, queue, inference } = milliseconds;
  const whole = (number) => (number < 10 ? number.toFixed(1) : number.toFixed(0));
  return `${whole(total)} ms in the service: decoding ${whole(decode)}, waiting ${whole(queue)}, network ${whole(inference)}`;
}

/** "about 40 s left" */
export function timeLeft(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.ceil(seconds / 5) * 5)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

const ADVICE = {
  no_lungs: "No lungs found",
  wrong_window: "Not a lung window",
  several_panels: "Several pictures in one",
  unsupported_image_type: "Not a readable image",
  damaged_image: "Damaged file",
  empty_file: "Empty file",
  image_too_small: "Image too small",
  too_many_pixels: "Image too large",
  body_too_large: "File too large",
  several_frames: "Several images in one file",
  unreadable_file: "Unreadable file",
  unreachable: "Service not reached",
};

/** A headline for a problem. */
export const headline = (problem) => ADVICE[problem.code] ?? problem.title;

/** The reason for which an answer has no label. */
export const reason = ({ out_of_distribution: { reason: code } }) => ADVICE[code] ?? "Out of distribution";

/** What to send instead of a picture that failed a check. */
export function remedy({ out_of_distribution: { reason: code } }) {
  return {
    no_lungs: "Send one axial chest CT slice that shows lungs.",
    wrong_window: "Export the slice in a lung window (width 1500, level -600), or send its DICOM file.",
    several_panels: "Cut out one slice, or export it alone, and send that.",
  }[code] ?? "Send one axial chest CT slice.";
}
