"""Words and templates of the made-up records: English hospital notes and bank messages.

Data only. A template names its slots in braces; `demo.generate` fills them and remembers where
each identifier went. Every finding names its desk in plain words, so the task can be learned.
"""

from __future__ import annotations

from typing import Final

QUESTION: Final = "Which desk should handle this?"

GIVEN: Final = (
    "Maria", "James", "Aisha", "Robert", "Elena", "David", "Priya", "Thomas", "Sofia", "Michael",
    "Nadia", "William", "Grace", "Daniel", "Fatima", "Joseph", "Hannah", "Carlos", "Emily",
    "Victor", "Laura", "Samuel", "Olivia", "Anthony", "Julia", "Patrick", "Monica", "George",
    "Teresa", "Henry", "Claire", "Marcus", "Diana", "Oscar", "Rachel", "Simon", "Irene", "Felix",
    "Martha", "Adam",
)  # fmt: skip
SURNAMES: Final = (
    "Lopez", "Whitfield", "Okafor", "Jensen", "Petrova", "Nakamura", "Sharma", "Brennan", "Rossi",
    "Kowalski", "Haddad", "Fletcher", "Mbeki", "Lindqvist", "Castellano", "Goldberg", "Pereira",
    "Thornton", "Vasquez", "Hughes", "Delgado", "Novak", "Armstrong", "Iyer", "Caldwell", "Moreau",
    "Schneider", "Ferguson", "Tanaka", "Ramirez", "Sinclair", "Abbott", "Kaplan", "Dawson", "Quinn",
    "Yilmaz", "Barros", "Hendricks", "Osborne", "Maxwell",
)  # fmt: skip
STREETS: Final = (
    "Maple Street", "Oak Avenue", "Harbor Road", "Linden Lane", "Mill Drive", "Chestnut Street",
    "Station Road", "Willow Court", "Park Avenue", "Orchard Lane", "Quarry Road", "Cedar Drive",
    "Bridge Street", "Highland Avenue", "Canal Street", "Meadow Lane",
)  # fmt: skip
TOWNS: Final = (
    "Springfield", "Riverton", "Oakdale", "Fairview", "Lakewood", "Brookfield", "Ashland", "Milton",
    "Greenville", "Clayton", "Salem", "Dover",
)  # fmt: skip
MAIL_HOSTS: Final = ("example.com", "example.org", "example.net", "mail.example.com")
AREAS: Final = ("212", "312", "415", "503", "617", "646", "713", "818", "907", "971")

LABELS: Final[dict[str, tuple[str, ...]]] = {
    "hospital": (
        "cardiology", "orthopedics", "pediatrics", "dermatology", "neurology", "billing",
    ),
    "bank": ("cards", "loans", "transfers", "fraud", "accounts", "insurance"),
}  # fmt: skip

FINDINGS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "hospital": {
        "cardiology": (
            "chest tightness when climbing stairs", "palpitations at rest",
            "an irregular heartbeat", "pressure on the chest after meals",
            "a racing heart at night", "swollen ankles and a heart murmur",
            "chest pain spreading to the left arm", "high blood pressure despite two drugs",
            "a skipped heartbeat after coffee", "shortness of breath and known heart failure",
            "a follow-up after a heart attack", "questions about a new pacemaker",
        ),
        "orthopedics": (
            "a swollen knee after football", "wrist pain after a fall",
            "a stiff shoulder for six weeks", "hip pain on every step",
            "a twisted ankle on the stairs", "lower back pain after lifting",
            "a broken finger in a splint", "elbow pain from tennis", "a cast that feels too tight",
            "a torn ligament in the knee", "heel pain in the morning",
            "a suspected fracture of the forearm",
        ),
        "pediatrics": (
            "a toddler with a fever and ear pain", "a baby who refuses milk",
            "a child with a barking cough", "vaccines due at 12 months",
            "a newborn with yellow skin", "a schoolchild with stomach ache",
            "a baby who cries after feeding", "an infant with a stuffy nose",
            "a child with chickenpox spots", "a toddler who swallowed a coin",
            "a growth check for a four-year-old child", "a child who wets the bed",
        ),
        "dermatology": (
            "an itchy rash on both arms", "a mole that changed its color", "acne that got worse",
            "dry and cracked skin on the hands", "a red ring-shaped skin patch",
            "hives after a new soap", "flaking skin on the scalp", "a wart on the thumb",
            "eczema behind the knees", "a sunburn with blisters", "a nail fungus on the big toe",
            "psoriasis on the elbows",
        ),
        "neurology": (
            "a migraine with flashing lights", "numb fingers in the left hand",
            "a seizure last week", "dizziness and double vision", "a tremor of the right hand",
            "memory loss over two months", "tingling in both feet", "a sudden severe headache",
            "a drooping face this morning", "sleep attacks during the day",
            "epilepsy and a missed dose", "trouble finding words",
        ),
        "billing": (
            "a question about an unpaid invoice", "a bill that was charged twice",
            "a request for a payment plan", "a wrong amount on the invoice",
            "a missing receipt for the co-payment", "a refund that has not arrived",
            "an invoice sent to the old insurer", "a question about the price of a scan",
            "a reminder fee on a paid bill", "a request for an itemized bill",
            "a dispute over a late fee", "a question about the deductible on the bill",
        ),
    },
    "bank": {
        "cards": (
            "my new debit card does not work at the till", "I forgot the PIN of my credit card",
            "my card is stuck in the cash machine", "please raise the limit of my credit card",
            "my card expired and no new card came", "contactless payment fails with my card",
            "I want a second card for my partner", "my card was damaged in the wash",
            "I need to activate my new card", "I want to change the PIN of my card",
            "the card reader rejects my debit card", "please cancel my old credit card",
        ),
        "loans": (
            "I want to borrow money for a used car", "please explain the rate of my mortgage",
            "I would like to repay my loan early", "I cannot pay this month's loan installment",
            "I need a mortgage for a small flat", "how much can I borrow for a kitchen",
            "I want to extend the term of my loan", "please send the schedule of my student loan",
            "my mortgage application is still pending", "can I merge two loans into one",
            "I want a lower interest rate on my loan", "I need a bridging loan for two months",
        ),
        "transfers": (
            "my wire transfer has not arrived", "I sent a payment to the wrong recipient",
            "please set up a standing order for my rent", "an international transfer is held up",
            "I need proof of a payment that I made", "the transfer fee seems too high",
            "please recall the transfer of yesterday", "my salary payment is late",
            "how long does a transfer abroad take", "I want to stop a direct debit",
            "a scheduled transfer went out twice", "I need to raise my daily transfer limit",
        ),
        "fraud": (
            "I see a payment that I did not make", "someone called and asked for my password",
            "I got a suspicious text with a link", "a stranger withdrew money in my name",
            "I typed my code into a fake website", "my wallet was stolen on the train",
            "there are unknown charges from abroad", "somebody opened credit in my name",
            "I fell for a scam in an online shop", "my phone was hacked and money is gone",
            "a caller pretended to be from the bank", "I suspect identity theft",
        ),
        "accounts": (
            "I want to open a savings account", "please close my joint account",
            "I need a statement of the last year", "I moved and must update my address",
            "I want to add my spouse to the account", "my online banking login is locked",
            "please change the name on my account", "I want an account for my daughter",
            "the monthly account fee changed", "I need a letter that confirms my balance",
            "I cannot download my account statements", "please reactivate my dormant account",
        ),
        "insurance": (
            "I want to report storm damage at my house", "please add travel cover to my policy",
            "I need to claim for a stolen bicycle", "what does my home policy cover",
            "I want to cancel my life insurance", "my car insurance premium went up",
            "a pipe burst and I want to file a claim", "I need a certificate of cover for a visa",
            "how do I insure my new motorcycle", "my claim was rejected without a reason",
            "I want to insure my rented flat", "please renew my travel insurance policy",
        ),
    },
}  # fmt: skip

OPENINGS: Final[dict[str, tuple[str, ...]]] = {
    "hospital": (
        "{name} came in with {finding}.",
        "Patient {name}, MRN {record}, presents with {finding}.",
        "Seen on {date}: {name}, with {finding}.",
        "Mrs. {surname} called about {finding}.",
        "Mr. {surname} wrote to us about {finding}.",
        "Walk-in at the front desk: {finding}. Name {name}.",
        "Reason for contact: {finding}. Patient: {name}.",
        "Dr. {doctor} refers {name} with {finding}.",
        "{name}, born {birth}, phoned about {finding}.",
        "Message from the family of {name}: {finding}.",
        "On {date} {name} told the nurse about {finding}.",
        "Triage: {finding}, record number {record}.",
    ),
    "bank": (
        "Hello, {finding}. My name is {name}.",
        "This is {name}, and {finding}.",
        "Customer {name} writes: {finding}.",
        "Hi, {finding}. Customer number {record}.",
        "Good morning, {finding}, regards, {name}.",
        "{name} called on {date}: {finding}.",
        "Dear team, {finding}. Thank you, {name}.",
        "Since {date} I have a problem: {finding}.",
        "Chat with {name}: {finding}.",
        "Mrs. {surname} says: {finding}.",
        "I am {name}, born {birth}, and {finding}.",
        "Branch note for {name}: {finding}.",
    ),
}

DETAILS: Final[dict[str, tuple[str, ...]]] = {
    "hospital": (
        "Call back on {phone}.",
        "Please write to {email}.",
        "Lives at {address}.",
        "Next visit planned for {date}.",
        "SSN {national} is on file.",
        "Daughter {relative} can be reached at {phone}.",
        "The family doctor is Dr. {doctor}.",
        "No allergies, takes 20 mg once a day for 3 weeks.",
        "Last seen by Dr. {doctor} on {date}.",
        "The patient has waited for 2 hours.",
        "Contact: {phone}.",
        "Send the letter to {address}.",
    ),
    "bank": (
        "You can reach me at {phone}.",
        "Please answer to {email}.",
        "My IBAN is {iban}.",
        "The card number is {card}.",
        "I live at {address}.",
        "My customer number is {record}.",
        "My partner {relative} knows about it.",
        "It has been like this for 3 days.",
        "Please call {phone} after 5 pm.",
        "I wrote about it on {date}.",
        "My SSN is {national}.",
        "I have been a customer for 12 years.",
    ),
}
