"""The purposes of secondary use: what the European Health Data Space allows, and what it forbids to everybody.

Source: Regulation (EU) 2025/327 (EHDS), Article 53(1) and Article 54. The codes are ours; the policies repeat them
(`policies/privacy.cedar`; a test compares the two lists). Article 53(2), which keeps some purposes for public bodies,
is a judgement about the applicant that the officers make when they sign.
"""

from typing import Final

ALLOWED: Final[dict[str, str]] = {
    "public-health": "public interest in public or occupational health (Art. 53(1)(a))",
    "policy-making": "policymaking and regulatory activities of public bodies (Art. 53(1)(b))",
    "statistics": "official statistics on health or care (Art. 53(1)(c))",
    "education": "education or teaching in health or care (Art. 53(1)(d))",
    "scientific-research": "scientific research on health or care (Art. 53(1)(e))",
    "product-development": "research that develops products or services for health or care (Art. 53(1)(e)(i))",
    "algorithm-training": "training, testing and evaluating algorithms, medical devices included (Art. 53(1)(e)(ii))",
    "care-improvement": "better delivery of care to other patients (Art. 53(1)(f))",
}
PROHIBITED: Final[dict[str, str]] = {
    "detrimental-decisions": "decisions to the detriment of a person or a group (Art. 54(a))",
    "discriminatory-terms": "worse terms in jobs, insurance, credit, goods or services (Art. 54(b))",
    "marketing": "advertising or marketing (Art. 54(c))",
    "harmful-products": "products or services that harm people or society (Art. 54(d))",
    "unethical-activities": "what national law on ethics rules out (Art. 54(e))",
}
